#include "text/tokenizer_parts.h"

#include <nlohmann/json.hpp>

#include "io/json.h"
#include "text/token_table.h"
#include "text/utf8.h"

namespace tandem::text {
namespace {

using base::Result;
using base::Status;
using base::unsupported;
using io::describe_json;
using nlohmann::json;

constexpr size_t kMaxQuotedBytes = 48;
constexpr int kMaxNesting = 4;  // Sequence inside Sequence

const json kNull = nullptr;

const json& member(const json& object, const char* key) {
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

std::string type_of(const json& part) {
  const json& type = member(part, "type");
  return type.is_string() ? type.get<std::string>() : describe_json(part);
}

// {"type": "Replace", "pattern": {"String": P}, "content": C}
Result<std::pair<std::string, std::string>> read_replace(const json& part, const char* where) {
  const json& pattern = member(member(part, "pattern"), "String");
  const json& content = member(part, "content");
  if (!pattern.is_string() || pattern.get_ref<const std::string&>().empty()) {
    return unsupported("{}: expected a Replace of a literal String pattern, got pattern {}", where,
                       describe_json(member(part, "pattern")));
  }
  if (!content.is_string())
    return unsupported("{}: expected string content in Replace, got {}", where,
                       describe_json(content));
  return std::pair(pattern.get<std::string>(), content.get<std::string>());
}

Status read_normalizer_into(const json& part, int depth, Normalizer& normalizer) {
  if (part.is_null()) return {};
  const std::string type = type_of(part);
  if (type == "Replace") {
    TANDEM_ASSIGN_OR_RETURN(auto replace, read_replace(part, "normalizer"));
    normalizer.add_replace(std::move(replace.first), std::move(replace.second));
    return {};
  }
  if (type == "Prepend" && member(part, "prepend").is_string()) {
    normalizer.add_prepend(member(part, "prepend").get<std::string>());
    return {};
  }
  if (type == "Sequence" && member(part, "normalizers").is_array() && depth < kMaxNesting) {
    for (const json& step : member(part, "normalizers"))
      TANDEM_RETURN_IF_ERROR(read_normalizer_into(step, depth + 1, normalizer));
    return {};
  }
  return unsupported("normalizer: expected Replace, Prepend or a Sequence of them, got {}", type);
}

bool is_pass_through(const json& template_items) {
  if (!template_items.is_array() || template_items.size() != 1) return false;
  return member(template_items[0], "Sequence").is_object();
}

Result<AddedToken> read_added_token(const json& entry, size_t index) {
  const json& id = member(entry, "id");
  const json& content = member(entry, "content");
  if (!id.is_number_integer() || !content.is_string() ||
      content.get_ref<const std::string&>().empty()) {
    return base::invalid("added_tokens[{}]: expected an object with id and content, got {}", index,
                         describe_json(entry));
  }
  const auto value = id.get<int64_t>();
  if (value < 0 || value >= TokenTable::kMaxTokens) {
    return base::invalid("added_tokens[{}].id: expected an id in [0, {}), got {}", index,
                         TokenTable::kMaxTokens, describe_json(id));
  }
  for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
    if (member(entry, flag) == json(true)) {
      return unsupported("added_tokens[{}] {}: expected {} false, got true", index,
                         quote(content.get<std::string>()), flag);
    }
  }
  AddedToken token;
  token.id = static_cast<int32_t>(value);
  token.content = content.get<std::string>();
  token.special = member(entry, "special") == json(true);
  token.normalized = member(entry, "normalized") == json(true);
  if (token.special && token.normalized) {
    return unsupported(
        "added_tokens[{}] {}: expected a special token with normalized false, got "
        "true",
        index, quote(token.content));
  }
  return token;
}

}  // namespace

std::string quote(std::string_view text) {
  const bool cut = text.size() > kMaxQuotedBytes;
  return fmt::format("\"{}{}\"", replace_invalid_utf8(text.substr(0, kMaxQuotedBytes)),
                     cut ? "..." : "");
}

Result<std::vector<AddedToken>> read_added_tokens(const json& added_tokens) {
  std::vector<AddedToken> tokens;
  if (added_tokens.is_null()) return tokens;
  if (!added_tokens.is_array())
    return base::invalid("added_tokens: expected an array, got {}", describe_json(added_tokens));
  for (size_t i = 0; i < added_tokens.size(); ++i) {
    TANDEM_ASSIGN_OR_RETURN(auto token, read_added_token(added_tokens[i], i));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

Result<Normalizer> read_normalizer(const json& normalizer) {
  Normalizer result;
  TANDEM_RETURN_IF_ERROR(read_normalizer_into(normalizer, 0, result));
  return result;
}

Result<DecoderReplacements> read_decoder(const json& decoder) {
  constexpr const char* kForm = "a Sequence of Replace, ByteFallback and Fuse";
  DecoderReplacements replacements;
  if (type_of(decoder) != "Sequence" || !member(decoder, "decoders").is_array())
    return unsupported("decoder: expected {}, got {}", kForm, type_of(decoder));
  bool byte_fallback = false;
  for (const json& step : member(decoder, "decoders")) {
    const std::string type = type_of(step);
    if (type == "Replace" && !byte_fallback) {
      TANDEM_ASSIGN_OR_RETURN(auto replace, read_replace(step, "decoder"));
      replacements.push_back(std::move(replace));
    } else if (type == "ByteFallback" && !byte_fallback) {
      byte_fallback = true;
    } else if (type != "Fuse" || !byte_fallback) {
      return unsupported("decoder: expected {}, got {}", kForm, type);
    }
  }
  if (!byte_fallback) return unsupported("decoder: expected {}, got no ByteFallback", kForm);
  return replacements;
}

Status check_pre_tokenizer(const json& part, const Normalizer& normalizer) {
  if (part.is_null()) return {};
  const json& pattern = member(member(part, "pattern"), "String");
  if (type_of(part) == "Split" && pattern.is_string() &&
      normalizer.removes(pattern.get<std::string>())) {
    return {};
  }
  return unsupported(
      "pre_tokenizer: expected null, or a Split at a character that the normalizer "
      "removes, got {}",
      type_of(part));
}

Status check_post_processor(const json& part) {
  if (part.is_null()) return {};
  if (type_of(part) == "TemplateProcessing" && is_pass_through(member(part, "single"))) return {};
  return unsupported(
      "post_processor: expected null or a TemplateProcessing that adds no token, "
      "got {}",
      type_of(part));
}

}  // namespace tandem::text
