// What normalize_messages refuses and how it says so; what it changes.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "text/message.h"

namespace tandem::text {
namespace {

using nlohmann::ordered_json;

ordered_json normalized(const char* json, const MessageForm& form = {}) {
  const auto result = normalize_messages(ordered_json::parse(json), form);
  EXPECT_TRUE(result.has_value()) << json << (result ? "" : result.error().message);
  return result ? *result : ordered_json();
}

TEST(Message, Refusals) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "messages: expected an array, got an object"},
      {R"([])", "messages: expected at least one message, got none"},
      {R"([1])", "messages[0]: expected an object, got a number"},
      {R"([{"content":"x"}])", "messages[0].role: expected a string, got nothing"},
      {R"([{"role":"a b","content":"x"}])",
       "messages[0].role: expected system, developer, user, assistant or tool, got another text"},
      {R"([{"role":"user"}])",
       "messages[0].content: expected a string or an array of text parts, got nothing"},
      {R"([{"role":"user","content":"a"},{"role":"user","content":null}])",
       "messages[1].content: expected a string or an array of text parts, got null"},
      {R"([{"role":"tool","content":{"a":1}}])",
       "messages[0].content: expected a string or an array of text parts, got an object"},
      {R"([{"role":"user","content":[{"type":"text"}]}])",
       "messages[0].content[0].text: expected a string, got nothing"},
      {R"([{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}])",
       "messages[0].content[1]: expected a text part, got a part of type image_url; Tandem reads "
       "text only, leave it out"},
      {R"([{"role":"user","content":[{"type":"input_audio"}]}])",
       "messages[0].content[0]: expected a text part, got a part of type input_audio; Tandem reads "
       "text only, leave it out"},
      {R"([{"role":"user","content":[{"type":"secret"}]}])",
       "messages[0].content[0].type: expected \"text\", got another type"},
      {R"([{"role":"user","content":"x","tool_calls":[]}])",
       "messages[0].tool_calls: expected in messages of the assistant only"},
      {R"([{"role":"assistant","tool_calls":{}}])",
       "messages[0].tool_calls: expected an array, got an object"},
      {R"([{"role":"assistant","tool_calls":[{"function":{"name":1}}]}])",
       "messages[0].tool_calls[0].function.name: expected a string, got a number"},
      {R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"[1]"}}]}])",
       "messages[0].tool_calls[0].function.arguments: expected the text of a JSON object, got an "
       "array"},
      {R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{"}}]}])",
       "messages[0].tool_calls[0].function.arguments: expected the text of a JSON object, got "
       "broken JSON"},
      {R"([{"role":"assistant","content":"x","reasoning":5}])",
       "messages[0].reasoning: expected a string, got a number"},
      {R"([{"role":"assistant","content":"x","function_call":{}}])",
       "messages[0].function_call: expected tool_calls, got the older form"},
      {R"([{"role":"assistant","tool_responses":[5]}])",
       "messages[0].tool_responses[0]: expected an object, got a number"},
  };
  for (const auto& [json, message] : cases) {
    const auto result = normalize_messages(ordered_json::parse(json), {});
    ASSERT_FALSE(result.has_value()) << json;
    EXPECT_EQ(result.error().message, message) << json;
  }
}

TEST(Message, ArgumentsBecomeMappingsInTheirOrder) {
  const ordered_json messages = normalized(
      R"([{"role":"assistant","tool_calls":[
           {"function":{"name":"f","arguments":"{\"z\": 1, \"a\": [1.0]}"}},
           {"function":{"name":"g","arguments":""}},
           {"function":{"name":"h","arguments":null}},
           {"function":{"name":"i","arguments":{"k":2}}},
           {"function":{"name":"j","arguments":" null\n"}}]}])");
  const auto& calls = messages[0]["tool_calls"];
  EXPECT_EQ(calls[0]["function"]["arguments"].dump(), R"({"z":1,"a":[1.0]})");
  EXPECT_EQ(calls[1]["function"]["arguments"].dump(), "{}");
  EXPECT_EQ(calls[2]["function"]["arguments"].dump(), "{}");
  EXPECT_EQ(calls[3]["function"]["arguments"].dump(), R"({"k":2})");
  EXPECT_EQ(calls[4]["function"]["arguments"].dump(), "{}");
}

TEST(Message, DeepArgumentsAreRefused) {
  ordered_json messages = ordered_json::parse(
      R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":""}}]}])");
  messages[0]["tool_calls"][0]["function"]["arguments"] = std::string(1'000'000, '[');
  EXPECT_FALSE(normalize_messages(messages, {}).has_value());
}

TEST(Message, PartsAndRolesFollowTheTemplate) {
  const char* json = R"([{"role":"developer","content":["a",{"type":"text","text":"b"}]}])";
  const ordered_json kept = normalized(json);
  EXPECT_EQ(kept[0]["role"], "developer");
  EXPECT_EQ(kept[0]["content"].dump(),
            R"([{"type":"text","text":"a"},{"type":"text","text":"b"}])");
  const ordered_json plain = normalized(json, {.content_parts = false, .developer_role = false});
  EXPECT_EQ(plain[0]["role"], "system");
  EXPECT_EQ(plain[0]["content"], "a\nb");
}

TEST(Message, UnknownFieldsStay) {
  EXPECT_EQ(normalized(R"([{"role":"user","content":"x","extra":[1]}])")[0]["extra"].dump(), "[1]");
}

TEST(Message, Tools) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "tools: expected an array, got an object"},
      {R"([{"type":"x","function":{"name":"f"}}])",
       "tools[0].type: expected \"function\", got another type"},
      {R"([{"type":"function"}])", "tools[0].function: expected an object, got nothing"},
      {R"([{"function":{"name":""}}])",
       "tools[0].function.name: expected a name, got an empty string"},
      {R"([{"function":{"name":"f","parameters":[]}}])",
       "tools[0].function.parameters: expected a JSON schema, got an array"},
  };
  for (const auto& [json, message] : cases) {
    const auto status = check_tools(ordered_json::parse(json));
    ASSERT_FALSE(status.has_value()) << json;
    EXPECT_EQ(status.error().message, message);
  }
  EXPECT_TRUE(check_tools(ordered_json::parse(R"([{"type":"function","function":{"name":"f"}}])")));
}

}  // namespace
}  // namespace tandem::text
