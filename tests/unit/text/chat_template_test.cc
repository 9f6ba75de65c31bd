// Chat templates from a model folder: recorded prompts and ids, origins of text, options, refusals.
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/unit/text/jinja_test_support.h"
#include "tests/unit/text/real_tokenizer.h"

namespace tandem::text {
namespace {

using jinja::read_test_file;
using jinja::read_test_json;
using nlohmann::ordered_json;

constexpr const char* kGoogle = "google-gemma-4-12B-it.chat_template.jinja";

ChatTemplate template_of(const std::string& name) {
  auto result = ChatTemplate::parse(read_test_file("data/templates/" + name), name);
  EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().message);
  return std::move(*result);
}

std::vector<TextSegment> segments_of(const ChatTemplate& chat, const ChatRequest& request) {
  const auto result = chat.render(request);
  EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().message);
  return result.value_or(std::vector<TextSegment>{});
}

std::string prompt_of(const ChatTemplate& chat, const ordered_json& messages,
                      const ordered_json& kwargs = {}, bool generate = true) {
  ChatRequest request;
  request.messages = &messages;
  request.template_kwargs = &kwargs;
  request.add_generation_prompt = generate;
  return join_segments(segments_of(chat, request));
}

std::string error_of(const ChatTemplate& chat, const ChatRequest& request) {
  const auto result = chat.render(request);
  EXPECT_FALSE(result.has_value());
  return result ? "" : result.error().message;
}

class ModelFolder {
 public:
  ModelFolder() : path_(testing::TempDir() + "/tandem_chat_template_test") {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~ModelFolder() { std::filesystem::remove_all(path_); }
  ModelFolder(const ModelFolder&) = delete;
  ModelFolder& operator=(const ModelFolder&) = delete;

  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  base::Result<ChatTemplate> load() const { return ChatTemplate::load_for_model(path_); }

 private:
  std::filesystem::path path_;
};

TEST(ChatTemplate, RecordedRenderingsOfThe12B) {
  const auto golden = read_test_json("data/text/pegainfer/gemma4-tokenizer-golden.json");
  const ChatTemplate chat = template_of(kGoogle);
  ASSERT_EQ(golden["chat_templates"].size(), 5U);
  for (const auto& entry : golden["chat_templates"]) {
    const auto kwargs = entry.contains("enable_thinking")
                            ? ordered_json{{"enable_thinking", entry["enable_thinking"]}}
                            : ordered_json::object();
    EXPECT_EQ(prompt_of(chat, entry["messages"], kwargs, entry["add_generation_prompt"]),
              entry["rendered"].get<std::string>())
        << entry["name"];
  }
}

TEST(ChatTemplate, RecordedPromptsAndIdsOfVllm) {
  const auto golden = read_test_json("data/text/gem16/rendered_prompts.json");
  const ChatTemplate chat = template_of(kGoogle);
  ASSERT_GE(golden["prompts"].size(), 12U);
  for (const auto& entry : golden["prompts"]) {
    const ordered_json kwargs = {{"enable_thinking", entry["enable_thinking"]}};
    ChatRequest request;
    request.messages = &entry["messages"];
    request.template_kwargs = &kwargs;
    const auto segments = segments_of(chat, request);
    EXPECT_EQ(join_segments(segments), entry["rendered_prompt"].get<std::string>());
    EXPECT_EQ(real_tokenizer().encode_segments(segments),
              entry["prompt_token_ids"].get<std::vector<int32_t>>())
        << entry["id"];
  }
}

TEST(ChatTemplate, RecordedChatOfE2B) {
  const auto golden = read_test_json("data/text/lattice/chat_template_golden.json");
  const ChatTemplate chat = template_of("google-gemma-4-E2B-it.chat_template.17336.jinja");
  ChatRequest request;
  request.messages = &golden["messages"];
  const auto segments = segments_of(chat, request);
  EXPECT_EQ(join_segments(segments), golden["rendered_text"].get<std::string>());
  EXPECT_EQ(real_tokenizer().encode_segments(segments), golden["ids"].get<std::vector<int32_t>>());
}

TEST(ChatTemplate, UserTextCannotProduceControlTokens) {
  // Every special token in every field a user can fill, through every template.
  const std::vector<int32_t> specials = real_tokenizer().special_ids();
  for (const auto& file :
       std::filesystem::directory_iterator(std::string(TANDEM_TEST_DATA) + "/data/templates")) {
    const std::string name = file.path().filename().string();
    if (name == "README.md") continue;
    const ChatTemplate chat = template_of(name);
    const auto ids_with = [&](const std::string& x) {
      const ordered_json tools = {
          {{"type", "function"},
           {"function",
            {{"name", "f" + x},
             {"description", x},
             {"parameters",
              {{"type", "object"},
               {"properties", {{"p" + x, {{"type", "string"}, {"description", x}, {"enum", {x}}}}}},
               {"required", {"p" + x}}}}}}}};
      const ordered_json messages = {
          {{"role", "system"}, {"content", "s" + x}},
          {{"role", "user"}, {"content", "u" + x + "v"}},
          {{"role", "assistant"},
           {"reasoning", "r" + x},
           {"reasoning_content", "r" + x},
           {"content", "c"},
           {"tool_calls",
            {{{"id", "1"},
              {"function", {{"name", "f" + x}, {"arguments", {{"k" + x, {x, 1, {{x, x}}}}}}}}}}}},
          {{"role", "tool"}, {"tool_call_id", "1"}, {"content", "t" + x}},
          {{"role", "user"}, {"content", {{{"type", "text"}, {"text", x + "w"}}}}}};
      ChatRequest request;
      request.messages = &messages;
      request.tools = &tools;
      std::vector<int32_t> found;
      for (const int32_t id : real_tokenizer().encode_segments(segments_of(chat, request))) {
        if (std::binary_search(specials.begin(), specials.end(), id)) found.push_back(id);
      }
      return found;
    };
    const std::vector<int32_t> expected = ids_with("q");
    ASSERT_GT(expected.size(), 10U);
    for (const int32_t id : specials) {
      const std::string token(real_tokenizer().id_to_token(id));
      EXPECT_EQ(ids_with(token), expected) << name << " " << token;
    }
  }
}

TEST(ChatTemplate, ToolCallArgumentsMayBeText) {
  const ChatTemplate chat = template_of(kGoogle);
  const ordered_json messages = ordered_json::parse(
      R"([{"role":"user","content":"hi"},{"role":"assistant","tool_calls":[
          {"id":"c","type":"function","function":{"name":"f","arguments":"{\"b\":1.0,\"A\":\"x\"}"}}]},
          {"role":"tool","tool_call_id":"c","content":"ok"}])");
  const std::string prompt = prompt_of(chat, messages);
  EXPECT_NE(prompt.find("call:f{A:<|\"|>x<|\"|>,b:1.0}"), std::string::npos) << prompt;
  EXPECT_NE(prompt.find("response:f{value:<|\"|>ok<|\"|>}"), std::string::npos) << prompt;
}

TEST(ChatTemplate, FinalMessageStaysOpen) {
  const ChatTemplate chat = template_of(kGoogle);
  ChatRequest request;
  request.add_generation_prompt = false;
  request.continue_final_message = true;
  const auto render = [&](const char* json) {
    const ordered_json messages = ordered_json::parse(json);
    request.messages = &messages;
    return join_segments(segments_of(chat, request));
  };
  const std::string head = "<bos><|turn>user\nHi<turn|>\n<|turn>model\n";
  EXPECT_EQ(render(R"([{"role":"user","content":"Hi"},{"role":"assistant","content":"One, two"}])"),
            head + "One, two");
  // The template trims the message, so the blank at its end goes too.
  EXPECT_EQ(render(R"([{"role":"user","content":"Hi"},{"role":"assistant","content":"One, "}])"),
            head + "One,");
  EXPECT_EQ(render(R"([{"role":"user","content":"Hi"},
                       {"role":"assistant","content":[{"type":"text","text":"One"}]}])"),
            head + "One");

  // Of blanks the template leaves nothing; its own line end stays.
  EXPECT_EQ(render(R"([{"role":"user","content":"Hi"},{"role":"assistant","content":" \n"}])"),
            head);

  const ordered_json no_text =
      ordered_json::parse(R"([{"role":"assistant","content":null,"tool_calls":[]}])");
  request.messages = &no_text;
  EXPECT_EQ(error_of(chat, request),
            "continue_final_message: expected text in the final message to go on with, got none");
  request.add_generation_prompt = true;
  EXPECT_EQ(error_of(chat, request),
            "continue_final_message: expected add_generation_prompt to be false, got both");
}

TEST(ChatTemplate, AnEmptyFinalMessageIsBegunByTheModel) {
  const ChatTemplate chat = template_of(kGoogle);
  const ordered_json user = {{"role", "user"}, {"content", "Hi"}};
  ChatRequest request;
  const auto render = [&](bool continues, const ordered_json& messages) {
    request.messages = &messages;
    request.continue_final_message = continues;
    request.add_generation_prompt = !continues;
    return join_segments(segments_of(chat, request));
  };
  const std::string expected = render(false, ordered_json::array({user}));
  for (const ordered_json& content : std::vector<ordered_json>{
           "", nullptr, ordered_json::array(), {{{"type", "text"}, {"text", ""}}}}) {
    const ordered_json empty = {
        {"role", "assistant"}, {"content", content}, {"tool_calls", nullptr}};
    EXPECT_EQ(render(true, {user, empty}), expected) << content;
  }
  const ordered_json thought = {{"role", "assistant"}, {"content", ""}, {"reasoning", "hm"}};
  EXPECT_TRUE(render(true, {user, thought}).ends_with("<|channel>thought\nhm\n<channel|>"));
  EXPECT_TRUE(render(true, ordered_json::array({{{"role", "user"}, {"content", ""}}}))
                  .ends_with("<|turn>user\n"));
}

TEST(ChatTemplate, Kwargs) {
  const ChatTemplate chat = template_of(kGoogle);
  const ordered_json messages = {{{"role", "user"}, {"content", "Hi"}}};
  EXPECT_NE(prompt_of(chat, messages, {{"enable_thinking", true}}).find("<|think|>"),
            std::string::npos);
  for (const ordered_json& value : std::vector<ordered_json>{true,
                                                             1,
                                                             0.5,
                                                             "yes",
                                                             {1},
                                                             {{"a", 1}},
                                                             false,
                                                             0,
                                                             0.0,
                                                             "",
                                                             nullptr,
                                                             ordered_json::array(),
                                                             ordered_json::object()}) {
    const ordered_json kwargs = {{"enable_thinking", value}};
    EXPECT_EQ(prompt_of(chat, messages, kwargs).find("<|think|>") != std::string::npos,
              thinking_is_on(kwargs))
        << value;
  }
  EXPECT_TRUE(thinking_is_on({{"enable_thinking", 1}}));
  EXPECT_FALSE(thinking_is_on(ordered_json::object()));
  ChatRequest request;
  request.messages = &messages;
  const ordered_json reserved = {{"messages", ordered_json::array()}};
  request.template_kwargs = &reserved;
  EXPECT_EQ(error_of(chat, request),
            "chat_template_kwargs: expected no field 'messages'; set it in the request");
  // A kwarg may replace a special token, but is then ordinary text.
  const ordered_json bos = {{"bos_token", "<bos>"}};
  request.template_kwargs = &bos;
  const auto segments = segments_of(chat, request);
  ASSERT_FALSE(segments.empty());
  EXPECT_EQ(segments[0], (TextSegment{"<bos>", false}));
}

TEST(ChatTemplate, RoleAndPartsFollowTheTemplate) {
  const auto chat = ChatTemplate::parse(
      "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}", "plain");
  ASSERT_TRUE(chat.has_value());
  const ordered_json messages = ordered_json::parse(
      R"([{"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}])");
  EXPECT_EQ(prompt_of(*chat, messages), "system:a\nb;");
}

TEST(ChatTemplate, MessagesTheTemplateRefuses) {
  const auto chat = ChatTemplate::parse("{{ raise_exception('only ' ~ 'users') }}", "strict");
  ASSERT_TRUE(chat.has_value());
  const ordered_json messages = {{{"role", "user"}, {"content", "x"}}};
  ChatRequest request;
  request.messages = &messages;
  EXPECT_EQ(error_of(*chat, request), "strict:1: only users");
}

TEST(ChatTemplate, StrftimeNow) {
  const auto chat = ChatTemplate::parse("{{ strftime_now('%Y-%m-%d') }}", "clock");
  ASSERT_TRUE(chat.has_value());
  const ordered_json messages = {{{"role", "user"}, {"content", "x"}}};
  ChatRequest request;
  request.messages = &messages;
  request.now =
      std::time_t{1'000'000'000 - 5 * 3600};  // 2001-09-08 20:46 UTC: that day or the next
  const std::string date = join_segments(segments_of(*chat, request));
  EXPECT_TRUE(date == "2001-09-08" || date == "2001-09-09") << date;
}

TEST(ChatTemplateFolder, FileBeforeConfig) {
  const ModelFolder folder;
  folder.write("tokenizer_config.json",
               R"({"bos_token": "<B>", "eos_token": {"content": "<E>"}, "sot_token": "<S>",
                   "chat_template": "{{ bos_token }}config{{ eos_token }}{{ sot_token }}"})");
  const ordered_json messages = {{{"role", "user"}, {"content", "x"}}};
  auto chat = folder.load();
  ASSERT_TRUE(chat.has_value()) << chat.error().message;
  EXPECT_EQ(prompt_of(*chat, messages), "<B>config<E><S>");
  folder.write("chat_template.jinja", "{{ bos_token }}file");
  chat = folder.load();
  ASSERT_TRUE(chat.has_value()) << chat.error().message;
  EXPECT_EQ(prompt_of(*chat, messages), "<B>file");
}

TEST(ChatTemplateFolder, NamedTemplates) {
  const ModelFolder folder;
  folder.write("tokenizer_config.json",
               R"({"chat_template": [{"name": "default", "template": "plain"},
                                     {"name": "tool_use", "template": "tools"},
                                     {"name": "other", "template": "{{ broken"}]})");
  const auto chat = folder.load();
  ASSERT_TRUE(chat.has_value()) << chat.error().message;
  const ordered_json messages = {{{"role", "user"}, {"content", "x"}}};
  EXPECT_EQ(prompt_of(*chat, messages), "plain");
  const ordered_json tools = ordered_json::parse(R"([{"function":{"name":"f"}}])");
  ChatRequest request;
  request.messages = &messages;
  request.tools = &tools;
  EXPECT_EQ(join_segments(segments_of(*chat, request)), "tools");
}

TEST(ChatTemplateFolder, Refusals) {
  const ModelFolder folder;
  auto chat = folder.load();
  ASSERT_FALSE(chat.has_value());
  EXPECT_EQ(chat.error().code, base::ErrorCode::kNotFound);
  folder.write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_EQ(folder.load().error().message,
            "tokenizer_config.json: chat_template: expected a text or a list, got 5");
  folder.write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})");
  EXPECT_EQ(folder.load().error().message,
            "tokenizer_config.json: chat_template: expected one named \"default\", got none");
  folder.write("chat_template.jinja", "a\n{{ x | nofilter }}");
  EXPECT_EQ(folder.load().error().message,
            "chat_template.jinja:2: the filter 'nofilter' is not supported");
}

}  // namespace
}  // namespace tandem::text
