#include "server/answer_form.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/json.h"

namespace tandem::server {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using text::GrammarText;
using Content = std::optional<GrammarText>;

constexpr size_t kMaxSchemaBytes = size_t{256} << 10;
constexpr io::JsonLimits kFormLimits{.max_bytes = kMaxSchemaBytes,
                                     .max_depth = 64,
                                     .max_values = 50'000,
                                     .max_string_bytes = kMaxSchemaBytes};
constexpr size_t kMaxTextBytes = size_t{256} << 10;
constexpr size_t kMaxChoices = 1000;
constexpr size_t kMaxTags = 64;
constexpr size_t kMaxTagBytes = 1024;

tl::unexpected<ApiError> refused(const base::Error& error, const std::string& param) {
  return api_error(400, error.message, param);
}

// The message says where inside; the parameter is the one at the top.
tl::unexpected<ApiError> refused(ApiError error, const char* param) {
  error.param = param;
  return tl::unexpected<ApiError>(std::move(error));
}

ApiResult<Content> content_of(base::Result<GrammarText> grammar, const std::string& param) {
  if (!grammar) return refused(grammar.error(), param);
  return Content(std::move(*grammar));
}

// `text` is the schema's JSON.
ApiResult<Content> schema_form(const std::string& text, const std::string& where,
                               const std::string& param) {
  if (const auto parsed = io::parse_json(text, where, kFormLimits); !parsed)
    return refused(parsed.error(), param);
  return content_of(text::json_schema_grammar(*io::parse_ordered_json(text), where), param);
}

// {"structures": [{"begin", "schema", "end"}], "triggers": [...]}: values inside free text.
ApiResult<Content> tag_form(const ordered_json& tag, const std::string& where, const char* param) {
  const auto parsed = io::parse_json(tag.dump(), where, kFormLimits);
  if (!parsed) return refused(parsed.error(), param);
  Fields fields(*parsed, where);
  fields.string("type", 64);
  fields.refuse("format", "use structures and triggers");
  const std::vector<std::string> triggers = fields.strings("triggers", kMaxTags);
  const json* structures = fields.array("structures");
  if (!fields.error() &&
      (structures == nullptr || structures->empty() || structures->size() > kMaxTags))
    fields.fail("structures", fmt::format("expected 1 to {} of them", kMaxTags));
  std::vector<text::TaggedValue> values;
  for (size_t i = 0; !fields.error() && i < structures->size(); ++i) {
    Fields one((*structures)[i], fmt::format("{}.structures[{}]", where, i));
    const auto begin = one.string("begin", kMaxTagBytes);
    const auto end = one.string("end", kMaxTagBytes);
    if (!begin) one.fail("begin", "expected a string, got none");
    if (one.any("schema") == nullptr) one.fail("schema", "expected a schema, got none");
    one.finish();
    if (fields.take(one))
      values.push_back(
          {*begin, &tag["structures"][i]["schema"], end.value_or(""), one.path_of("schema")});
  }
  if (const auto error = fields.finish()) return refused(*error, param);
  return content_of(text::tagged_grammar(values, triggers, where), param);
}

ApiResult<Content> read_response_format(Fields& fields, const ordered_json& body) {
  constexpr auto kParam = "response_format";
  const json* format = fields.object(kParam);
  if (format == nullptr) return Content();
  const ordered_json& ordered = body[kParam];
  Fields inner(*format, kParam);
  const std::string type = inner.string("type", 64).value_or("");
  if (type == "structural_tag") return tag_form(ordered, kParam, kParam);
  const json* schema = inner.object("json_schema");
  if (const auto error = inner.finish()) return refused(*error, kParam);
  if (schema != nullptr && (type == "text" || type == "json_object"))
    return api_error(400, "response_format.json_schema: expected none with the type " + type,
                     kParam);
  if (type == "text") return Content();
  if (type == "json_object") return Content(text::json_object_grammar());
  if (type != "json_schema")
    return api_error(
        400,
        "response_format.type: expected text, json_object, json_schema or structural_tag, got " +
            io::describe_json(type),
        kParam);
  if (schema == nullptr)
    return api_error(400, "response_format.json_schema: expected an object, got none", kParam);
  Fields named(*schema, "response_format.json_schema");
  named.string("name", 256);
  named.string("description", kMaxTextBytes);
  named.boolean("strict");
  const json* inside = named.any("schema");
  if (const auto error = named.finish()) return refused(*error, kParam);
  if (inside == nullptr)
    return api_error(400, "response_format.json_schema.schema: expected a schema, got none",
                     kParam);
  return schema_form(ordered["json_schema"]["schema"].dump(), "response_format.json_schema.schema",
                     kParam);
}

ApiResult<Content> read_structured_outputs(Fields& fields, const ordered_json& body) {
  constexpr auto kParam = "structured_outputs";
  const json* given = fields.object(kParam);
  if (given == nullptr) return Content();
  Fields inner(*given, kParam);
  const json* schema = inner.any("json");
  const auto regex = inner.string("regex", kMaxTextBytes);
  const json* choice = inner.array("choice");
  const std::vector<std::string> choices = inner.strings("choice", kMaxChoices);
  const auto grammar = inner.string("grammar", kMaxTextBytes);
  const bool object = inner.boolean("json_object").value_or(false);
  const json* tag = inner.any("structural_tag");
  inner.refuse("whitespace_pattern", "white space is fixed");
  for (const char* key : {"disable_any_whitespace", "disable_additional_properties"})
    if (inner.boolean(key).value_or(false)) inner.fail(key, "expected false");
  inner.ignore({"disable_fallback"});
  if (const auto error = inner.finish()) return refused(*error, kParam);
  const int count = int{schema != nullptr} + int{regex.has_value()} + int{choice != nullptr} +
                    int{grammar.has_value()} + int{object} + int{tag != nullptr};
  if (count != 1)
    return api_error(400,
                     fmt::format("structured_outputs: expected exactly one of json, regex, choice, "
                                 "grammar, json_object and structural_tag, got {}",
                                 count),
                     kParam);
  if (regex) return content_of(text::regex_grammar(*regex, "structured_outputs.regex"), kParam);
  if (choice != nullptr)
    return content_of(text::choice_grammar(choices, "structured_outputs.choice"), kParam);
  if (grammar)
    return content_of(text::user_grammar(*grammar, "structured_outputs.grammar"), kParam);
  if (object) return Content(text::json_object_grammar());
  // The object, or its text; and so with a schema.
  if (tag != nullptr) {
    constexpr const char* kWhere = "structured_outputs.structural_tag";
    if (!tag->is_string()) return tag_form(body[kParam]["structural_tag"], kWhere, kParam);
    const auto checked = io::parse_json(tag->get<std::string>(), kWhere, kFormLimits);
    if (!checked) return refused(checked.error(), kParam);
    return tag_form(*io::parse_ordered_json(tag->get<std::string>()), kWhere, kParam);
  }
  return schema_form(schema->is_string() ? schema->get<std::string>() : body[kParam]["json"].dump(),
                     "structured_outputs.json", kParam);
}

// The tools that may be called, as far as their form is to be held to.
ApiResult<std::optional<text::ToolCallRules>> tool_rules(const ToolChoice& choice,
                                                         bool has_content) {
  text::ToolCallRules rules;
  rules.use = choice.forced() || has_content ? text::ToolCallRules::Use::kForced
                                             : text::ToolCallRules::Use::kFree;
  rules.many = choice.many;
  bool any_strict = false;
  for (size_t i = 0; i < choice.tools->size(); ++i) {
    const ordered_json& function = (*choice.tools)[i]["function"];
    text::CallableTool tool;
    tool.name = function["name"].get<std::string>();
    const bool good_name = std::ranges::all_of(tool.name, [](unsigned char c) {
      return c > ' ' && c < 0x7F && c != '{' && c != '}' && c != '"';
    });
    if (!good_name)
      return api_error(
          400, fmt::format("tools[{}].function.name: expected letters, digits, _, - and .", i),
          "tools");
    tool.where = fmt::format("tools[{}].function.parameters", i);
    const auto strict = function.find("strict");
    if (strict != function.end() && !strict->is_null() && !strict->is_boolean())
      return api_error(400,
                       fmt::format("tools[{}].function.strict: expected true or false, got {}", i,
                                   io::describe_json(*strict)),
                       "tools");
    tool.strict = strict != function.end() && *strict == true;
    const auto parameters = function.find("parameters");
    if (parameters != function.end() && parameters->is_object()) tool.parameters = &*parameters;
    any_strict |= tool.strict;
    if (choice.kind == ToolChoice::Kind::kNamed && tool.name != choice.name) continue;
    rules.tools.push_back(std::move(tool));
  }
  if (rules.tools.empty())
    return api_error(
        400,
        "tool_choice: expected the name of one of the tools, got " + io::describe_json(choice.name),
        "tool_choice");
  const bool needed = choice.forced() || has_content || any_strict || !choice.many;
  return needed ? std::optional(std::move(rules)) : std::nullopt;
}

// Parameters that would leave no token to choose where the grammar has come to its end.
std::optional<ApiError> check_sampling(const sampling::SamplingParams& sampling) {
  const auto clash = [](const char* name, const char* expected) {
    return ApiError{400,
                    fmt::format("{}: expected {} with response_format, structured_outputs, strict "
                                "or forced tools",
                                name, expected),
                    name};
  };
  if (sampling.min_tokens > 0) return clash("min_tokens", "0");
  if (sampling.ignore_eos) return clash("ignore_eos", "false");
  if (!sampling.allowed_token_ids.empty()) return clash("allowed_token_ids", "none");
  return std::nullopt;
}

}  // namespace

ToolChoice read_tool_choice(Fields& fields) {
  ToolChoice choice;
  choice.many = fields.boolean("parallel_tool_calls").value_or(true);
  const json* given = fields.any("tool_choice");
  if (given == nullptr || *given == "auto") return choice;
  if (*given == "none") {
    choice.kind = ToolChoice::Kind::kNone;
  } else if (*given == "required") {
    choice.kind = ToolChoice::Kind::kRequired;
  } else {
    choice.kind = ToolChoice::Kind::kNamed;
    const json function = given->is_object() ? given->value("function", json()) : json();
    const json name = function.is_object() ? function.value("name", json()) : json();
    if (!name.is_string())
      fields.fail("tool_choice",
                  "expected \"auto\", \"none\", \"required\" or {\"type\": \"function\", "
                  "\"function\": {\"name\": NAME}}, got " +
                      io::describe_json(*given));
    else
      choice.name = name.get<std::string>();
  }
  return choice;
}

ApiResult<Content> read_content_form(Fields& fields, std::string_view body) {
  for (const char* key :
       {"guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_json_object",
        "guided_decoding_backend", "guided_whitespace_pattern", "structural_tag"})
    fields.refuse(key, "use structured_outputs");
  if (fields.any("response_format") == nullptr && fields.any("structured_outputs") == nullptr)
    return Content();
  const ordered_json ordered = *io::parse_ordered_json(body);
  auto format = read_response_format(fields, ordered);
  if (!format) return format;
  auto outputs = read_structured_outputs(fields, ordered);
  if (!outputs) return outputs;
  if (*format && *outputs)
    return api_error(400, "structured_outputs: expected none beside response_format",
                     "structured_outputs");
  return *format ? format : outputs;
}

text::Thought thought_after(const std::vector<int32_t>& prompt, bool thinking,
                            const text::Tokenizer& tokenizer) {
  const auto begin = tokenizer.token_to_id("<|channel>");
  const auto end = tokenizer.token_to_id("<channel|>");
  const auto turn_end = tokenizer.token_to_id("<turn|>");
  if (!begin || !end) return text::Thought::kNone;
  for (size_t i = prompt.size(); i-- > 0;) {
    if (prompt[i] == *begin) return text::Thought::kOpen;
    if (prompt[i] == *end || prompt[i] == turn_end) break;
  }
  // Where thinking is off, templates write a thought that is closed already, or nothing.
  const bool closed = !prompt.empty() && prompt.back() == *end;
  return thinking && !closed ? text::Thought::kMay : text::Thought::kNone;
}

ApiResult<FormGrammar> compile_form(Fields& fields, Content content, const ToolChoice* tools,
                                    text::Thought thought, const sampling::SamplingParams& sampling,
                                    const ServedModel& model) {
  const bool has_content = content.has_value();
  std::optional<text::ToolCallRules> rules;
  if (tools != nullptr) {
    auto read = tool_rules(*tools, has_content);
    if (!read) return tl::unexpected<ApiError>(std::move(read.error()));
    rules = std::move(*read);
  }
  if (!has_content && !rules) return FormGrammar();
  if (auto error = check_sampling(sampling)) return tl::unexpected<ApiError>(*error);
  const std::vector<int32_t>& ends = model.grammars->end_ids();
  bool free = false;
  if (rules) {
    free = rules->use == text::ToolCallRules::Use::kFree;
    auto calls = text::tool_call_grammar(*rules, model.tokenizer, ends);
    if (!calls) return refused(calls.error(), "tools");
    content = has_content && !tools->forced() ? text::either(std::move(*content), *calls)
                                              : std::move(*calls);
  }
  const GrammarText whole =
      free ? std::move(*content)
           : text::after_thought(std::move(*content), thought, model.tokenizer, ends);
  const char* const content_field =
      fields.any("structured_outputs") != nullptr ? "structured_outputs" : "response_format";
  const std::string param = has_content ? content_field : "tools";
  auto grammar = model.grammars->compile(whole.ebnf, whole.root, param);
  if (!grammar) return refused(grammar.error(), param);
  return *grammar;
}

}  // namespace tandem::server
