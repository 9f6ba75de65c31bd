// Reads tokenizer.json: the two large tables straight from the text, the rest as small documents.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "io/json.h"
#include "text/json_scanner.h"
#include "text/tokenizer_parts.h"
#include "text/tokenizer_tables.h"
#include "text/utf8.h"

namespace tandem::text {
namespace {

using base::Result;
using base::Status;
using nlohmann::json;

class TokenizerReader {
 public:
  explicit TokenizerReader(std::string_view text) : text_(text) {}
  Result<TokenizerTables> read();

 private:
  bool read_top_level(JsonScanner& scanner);
  bool read_small_part(JsonScanner& scanner, json& part);
  bool read_model(JsonScanner& scanner);
  bool read_model_member(JsonScanner& scanner, std::string_view key);
  bool check_model_type();
  bool check_model_options();
  bool read_vocab(JsonScanner& scanner);
  bool add_vocab_token(std::string_view text, int64_t id);
  bool register_byte_tokens();
  bool register_added_tokens();
  bool read_merges(JsonScanner& scanner);
  bool read_merge(JsonScanner& scanner);
  bool append_merge(std::string_view left, std::string_view right);
  bool find_merge_part(std::string_view part, int32_t& id);
  bool find_merged(std::string_view left, std::string_view right, int32_t& id);
  Status finish();

  // Runs a step whose failure is a Status; keeps the first failure.
  template <typename T>
  bool take(Result<T> result, T& value) {
    if (!result) return refuse(result.error());
    value = std::move(*result);
    return true;
  }
  bool take(const Status& status) { return status ? true : refuse(status.error()); }
  bool refuse(base::Error error) {
    if (error_.message.empty()) error_ = std::move(error);
    return false;
  }
  template <typename... Args>
  bool refuse(fmt::format_string<Args...> format, Args&&... args) {
    return refuse(base::Error{base::ErrorCode::kInvalidArgument,
                              fmt::format(format, std::forward<Args>(args)...)});
  }
  template <typename... Args>
  bool refuse_form(fmt::format_string<Args...> format, Args&&... args) {
    return refuse(base::Error{base::ErrorCode::kUnsupported,
                              fmt::format(format, std::forward<Args>(args)...)});
  }

  std::string_view text_;
  TokenizerTables tables_;
  MergeTable merges_;
  std::vector<AddedToken> added_;
  json normalizer_, pre_tokenizer_, post_processor_, decoder_, model_options_ = json::object();
  bool seen_model_ = false;
  bool seen_added_ = false;
  bool seen_vocab_ = false;
  bool seen_merges_ = false;
  std::string scratch_left_, scratch_right_, merged_text_;
  int32_t merged_id_ = -1;
  base::Error error_;
};

Result<TokenizerTables> TokenizerReader::read() {
  if (text_.starts_with("version https://git-lfs"))
    return base::invalid("expected a JSON object, got a git-lfs pointer; download the file itself");
  JsonScanner scanner(text_);
  bool ok = read_top_level(scanner);
  if (ok && scanner.peek() != '\0') ok = scanner.fail("the end of the file");
  if (ok && !seen_model_) ok = refuse("model: expected an object, got none");
  if (ok) ok = take(finish());
  if (ok) return std::move(tables_);
  if (error_.message.empty()) return base::invalid("{}", scanner.error());
  return tl::unexpected<base::Error>(std::move(error_));
}

bool TokenizerReader::read_top_level(JsonScanner& scanner) {
  std::string_view late_model;  // a model that stands before the added tokens it depends on
  const bool ok = scanner.read_object([&](std::string_view key) {
    if (key == "model" && seen_model_) return refuse("model: expected one, got two");
    if (key == "model" && seen_added_) return read_model(scanner);
    if (key == "model") {
      seen_model_ = true;
      return scanner.skip_value(late_model);
    }
    if (key == "added_tokens") {
      json part;
      seen_added_ = true;
      return read_small_part(scanner, part) && take(read_added_tokens(part), added_);
    }
    if (key == "normalizer") return read_small_part(scanner, normalizer_);
    if (key == "pre_tokenizer") return read_small_part(scanner, pre_tokenizer_);
    if (key == "post_processor") return read_small_part(scanner, post_processor_);
    if (key == "decoder") return read_small_part(scanner, decoder_);
    std::string_view ignored;
    return scanner.skip_value(ignored);
  });
  if (!ok || late_model.empty()) return ok;
  JsonScanner late(text_, static_cast<size_t>(late_model.data() - text_.data()));
  return read_model(late) || (late.failed() && refuse("{}", late.error()));
}

bool TokenizerReader::read_small_part(JsonScanner& scanner, json& part) {
  std::string_view span;
  if (!scanner.skip_value(span)) return false;
  part = json::parse(span, nullptr, false);
  return !part.is_discarded() || refuse("expected valid JSON, got {}", quote(span));
}

bool TokenizerReader::read_model(JsonScanner& scanner) {
  seen_model_ = true;
  if (scanner.peek() != '{') return scanner.fail("an object for model");
  std::string_view late_merges;  // merges that stand before the vocabulary they name
  const bool ok = scanner.read_object([&](std::string_view key) {
    if (key == "merges" && !seen_vocab_) return scanner.skip_value(late_merges);
    return read_model_member(scanner, key);
  });
  if (!ok || !check_model_options()) return false;
  if (!seen_vocab_) return refuse("model.vocab: expected an object, got none");
  if (!late_merges.empty() && !seen_merges_) {
    JsonScanner late(text_, static_cast<size_t>(late_merges.data() - text_.data()));
    if (!read_merges(late)) return late.failed() && refuse("{}", late.error());
  }
  return seen_merges_ || refuse("model.merges: expected an array, got none");
}

bool TokenizerReader::read_model_member(JsonScanner& scanner, std::string_view key) {
  if (key == "vocab") {
    // A foreign model is named before its vocabulary is misread.
    return (!model_options_.contains("type") || check_model_type()) && read_vocab(scanner) &&
           register_byte_tokens() && register_added_tokens();
  }
  if (key == "merges") return read_merges(scanner);
  const std::string name(key);
  return read_small_part(scanner, model_options_[name]);
}

bool TokenizerReader::check_model_type() {
  const json type = model_options_.value("type", json(nullptr));
  return type == "BPE" ||
         refuse_form("model.type: expected \"BPE\", got {}", io::describe_json(type));
}

bool TokenizerReader::check_model_options() {
  if (!check_model_type()) return false;
  const auto option = [&](const char* name) { return model_options_.value(name, json(nullptr)); };
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json affix = option(name);
    const auto* text = affix.get_ptr<const json::string_t*>();
    if (!affix.is_null() && (text == nullptr || !text->empty()))
      return refuse_form("model.{}: expected null, got {}", name, io::describe_json(option(name)));
  }
  if (!option("dropout").is_null() && option("dropout") != 0.0)
    return refuse_form("model.dropout: expected null, got {}",
                       io::describe_json(option("dropout")));
  if (option("ignore_merges") == json(true))
    return refuse_form("model.ignore_merges: expected false, got true");
  if (option("byte_fallback") != json(true)) {
    return refuse_form("model.byte_fallback: expected true, got {}",
                       io::describe_json(option("byte_fallback")));
  }
  return true;
}

bool TokenizerReader::read_vocab(JsonScanner& scanner) {
  if (seen_vocab_) return refuse("model.vocab: expected one, got two");
  if (scanner.peek() != '{') return scanner.fail("an object for model.vocab");
  seen_vocab_ = true;
  tables_.tokens.reserve(text_.size() / 128, text_.size() / 14);
  return scanner.read_object([&](std::string_view text) {
    int64_t id = 0;
    return scanner.read_integer(id) && add_vocab_token(text, id);
  });
}

bool TokenizerReader::add_vocab_token(std::string_view text, int64_t id) {
  if (text.empty() || !is_valid_utf8(text)) {
    return refuse("model.vocab: expected tokens of valid UTF-8, got {} with id {}", quote(text),
                  id);
  }
  if (id < 0 || id >= TokenTable::kMaxTokens) {
    return refuse("model.vocab: expected ids in [0, {}), got {} for {}", TokenTable::kMaxTokens, id,
                  quote(text));
  }
  switch (tables_.tokens.add(static_cast<int32_t>(id), text)) {
    case TokenTable::AddResult::kAdded:
      break;
    case TokenTable::AddResult::kDuplicateText:
      return refuse("model.vocab: expected each token once, got {} twice", quote(text));
    case TokenTable::AddResult::kDuplicateId:
      return refuse("model.vocab: expected each id once, got {} for {} and {}", id,
                    quote(tables_.tokens.text(static_cast<int32_t>(id))), quote(text));
  }
  const Utf8Scalar first = decode_scalar(text, 0);
  if (first.length == text.size())
    tables_.bpe.set_initial_token(first.value, static_cast<int32_t>(id));
  return true;
}

bool TokenizerReader::register_byte_tokens() {
  tables_.byte_values.assign(static_cast<size_t>(tables_.tokens.size()), -1);
  for (int byte = 0; byte < 256; ++byte) {
    const std::string name = fmt::format("<0x{:02X}>", byte);
    const auto id = tables_.tokens.find(name);
    if (!id) {
      return refuse("model.vocab: expected the 256 byte tokens of byte_fallback, got no {}",
                    quote(name));
    }
    tables_.byte_values[static_cast<size_t>(*id)] = static_cast<int16_t>(byte);
    tables_.bpe.set_byte_token(static_cast<uint8_t>(byte), *id);
  }
  return true;
}

bool TokenizerReader::register_added_tokens() {
  TokenTable& tokens = tables_.tokens;
  for (const AddedToken& token : added_) {
    const auto known = tokens.find(token.content);
    if (known && *known != token.id) {
      return refuse("added_tokens: expected id {} for {} as in model.vocab, got {}", *known,
                    quote(token.content), token.id);
    }
    if (!known && tokens.add(token.id, token.content) != TokenTable::AddResult::kAdded) {
      return refuse("added_tokens: expected an unused id for {}, got {}, which is {}",
                    quote(token.content), token.id, quote(tokens.text(token.id)));
    }
  }
  tables_.special.assign(static_cast<size_t>(tokens.size()), 0);
  tables_.byte_values.resize(static_cast<size_t>(tokens.size()), -1);
  for (const AddedToken& token : added_) {
    if (token.special) tables_.special[static_cast<size_t>(token.id)] = 1;
    // A special token never comes out of ordinary text, not even one of a single character.
    const Utf8Scalar first = decode_scalar(token.content, 0);
    if (token.special && first.length == token.content.size())
      tables_.bpe.set_initial_token(first.value, -1);
  }
  return true;
}

bool TokenizerReader::read_merges(JsonScanner& scanner) {
  if (seen_merges_) return refuse("model.merges: expected one, got two");
  if (scanner.peek() != '[') return scanner.fail("an array for model.merges");
  seen_merges_ = true;
  merges_.reserve(text_.size() / 64);
  return scanner.read_array([&] { return read_merge(scanner); });
}

// ["a", "b"], or the older form "a b".
bool TokenizerReader::read_merge(JsonScanner& scanner) {
  std::string_view left, right;
  if (scanner.peek() == '[') {
    return scanner.consume('[') && scanner.read_string(scratch_left_, left) &&
           scanner.consume(',') && scanner.read_string(scratch_right_, right) &&
           scanner.consume(']') && append_merge(left, right);
  }
  if (scanner.peek() != '"') return scanner.fail("a pair of tokens");
  if (!scanner.read_string(scratch_left_, left)) return false;
  const size_t space = left.find(' ');
  if (space == std::string_view::npos || left.find(' ', space + 1) != std::string_view::npos) {
    return refuse("model.merges[{}]: expected two tokens, got {}", merges_.size(), quote(left));
  }
  return append_merge(left.substr(0, space), left.substr(space + 1));
}

bool TokenizerReader::find_merge_part(std::string_view part, int32_t& id) {
  const auto found = tables_.tokens.find(part);
  if (!found) {
    return refuse("model.merges[{}]: expected tokens of model.vocab, got {}", merges_.size(),
                  quote(part));
  }
  id = *found;
  if (tables_.byte_values[static_cast<size_t>(id)] < 0) return true;
  return refuse_form("model.merges[{}]: expected ordinary tokens, got the byte token {}",
                     merges_.size(), quote(part));
}

// Neighbouring merges often spell the same token, so the last one found is kept.
bool TokenizerReader::find_merged(std::string_view left, std::string_view right, int32_t& id) {
  const bool same = merged_id_ >= 0 && merged_text_.size() == left.size() + right.size() &&
                    merged_text_.starts_with(left) && merged_text_.ends_with(right);
  if (!same) {
    merged_text_.assign(left).append(right);
    merged_id_ = -1;
    if (!find_merge_part(merged_text_, merged_id_)) return false;
  }
  id = merged_id_;
  return true;
}

bool TokenizerReader::append_merge(std::string_view left, std::string_view right) {
  int32_t left_id = -1, right_id = -1, merged_id = -1;
  if (!find_merge_part(left, left_id) || !find_merge_part(right, right_id) ||
      !find_merged(left, right, merged_id)) {
    return false;
  }
  // Special tokens come from matching alone; a merge that would spell one keeps only its rank.
  for (const int32_t id : {left_id, right_id, merged_id}) {
    if (tables_.is_special(id)) merged_id = -1;
  }
  merges_.append(left_id, right_id, merged_id);
  return true;
}

Status TokenizerReader::finish() {
  TANDEM_ASSIGN_OR_RETURN(tables_.normalizer, read_normalizer(normalizer_));
  TANDEM_RETURN_IF_ERROR(check_pre_tokenizer(pre_tokenizer_, tables_.normalizer));
  TANDEM_RETURN_IF_ERROR(check_post_processor(post_processor_));
  TANDEM_ASSIGN_OR_RETURN(const auto replacements, read_decoder(decoder_));
  tables_.bpe.set_merges(std::move(merges_), tables_.tokens);
  for (const AddedToken& token : added_) {
    if (token.normalized) {
      const std::string content = tables_.normalizer.apply(token.content);
      if (!content.empty()) tables_.normalized_added.add(content, token.id);
    } else {
      tables_.raw_added.add(token.content, token.id);
    }
  }
  std::string changed;
  for (int32_t id = 0; id < tables_.tokens.size(); ++id) {
    std::string_view piece = tables_.tokens.text(id);
    if (tables_.byte_values[static_cast<size_t>(id)] >= 0) piece = {};
    for (const auto& [pattern, content] : replacements) {
      if (piece.find(pattern) == std::string_view::npos) continue;
      changed = replace_all(piece, pattern, content);
      piece = changed;
    }
    tables_.pieces.append(piece);
  }
  const auto named = [&](const char* name) { return tables_.tokens.find(name); };
  tables_.bos = named("<bos>");
  tables_.eos = named("<eos>");
  tables_.pad = named("<pad>");
  return {};
}

}  // namespace

Result<TokenizerTables> read_tokenizer_json(std::string_view json) {
  return TokenizerReader(json).read();
}

}  // namespace tandem::text
