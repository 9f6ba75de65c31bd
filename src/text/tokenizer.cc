#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "io/mapped_file.h"
#include "text/detokenizer.h"
#include "text/tokenizer_tables.h"
#include "text/utf8.h"

namespace tandem::text {
namespace {

using base::Result;

constexpr size_t kMaxFileBytes = size_t{1} << 30;

// A byte range in which special tokens count.
struct TrustedRange {
  size_t begin = 0;
  size_t end = 0;
};

// Encodes one text; trusted ranges are ascending and disjoint.
class Encoder {
 public:
  Encoder(const TokenizerTables& tables, std::span<const TrustedRange> trusted, MergeStats& stats)
      : tables_(tables), trusted_(trusted), stats_(stats) {}

  std::vector<int32_t> encode(std::string_view text);

 private:
  enum class Trust { kInside, kOutside, kAcross };
  Trust trust_of(size_t begin, size_t end);
  void encode_plain(std::string_view text);

  const TokenizerTables& tables_;
  std::span<const TrustedRange> trusted_;
  MergeStats& stats_;
  std::vector<int32_t> ids_;
};

// Called with ascending `begin`, so ranges that lie behind are dropped.
Encoder::Trust Encoder::trust_of(size_t begin, size_t end) {
  while (!trusted_.empty() && trusted_.front().end <= begin) trusted_ = trusted_.subspan(1);
  if (trusted_.empty() || trusted_.front().begin >= end) return Trust::kOutside;
  const bool inside = trusted_.front().begin <= begin && end <= trusted_.front().end;
  return inside ? Trust::kInside : Trust::kAcross;
}

std::vector<int32_t> Encoder::encode(std::string_view text) {
  size_t plain_begin = 0;
  for (size_t at = 0; at < text.size();) {
    const TokenTrie::Match match = tables_.raw_added.longest_at(text, at);
    if (match.length == 0) {
      ++at;
      continue;
    }
    if (tables_.is_special(match.id)) {
      const Trust trust = trust_of(at, at + match.length);
      if (trust != Trust::kInside) {
        // Half a spelling from outside must not swallow the start of one that the template wrote.
        at += trust == Trust::kOutside ? match.length : 1;
        continue;
      }
    }
    encode_plain(text.substr(plain_begin, at - plain_begin));
    ids_.push_back(match.id);
    at += match.length;
    plain_begin = at;
  }
  encode_plain(text.substr(plain_begin));
  return std::move(ids_);
}

void Encoder::encode_plain(std::string_view text) {
  if (text.empty()) return;
  const std::string normalized = tables_.normalizer.apply(text);
  const std::string_view rest = normalized;
  size_t plain_begin = 0;
  if (!tables_.normalized_added.empty()) {
    for (size_t at = 0; at < rest.size();) {
      const TokenTrie::Match match = tables_.normalized_added.longest_at(rest, at);
      if (match.length == 0) {
        ++at;
        continue;
      }
      tables_.bpe.encode(rest.substr(plain_begin, at - plain_begin), ids_, stats_);
      ids_.push_back(match.id);
      at += match.length;
      plain_begin = at;
    }
  }
  tables_.bpe.encode(rest.substr(plain_begin), ids_, stats_);
}

// Returns `text` itself when it is valid, else its repair, which `storage` holds.
std::string_view repair_utf8(std::string_view text, std::string& storage) {
  if (is_valid_utf8(text)) return text;
  storage = replace_invalid_utf8(text);
  return storage;
}

}  // namespace

Result<std::shared_ptr<TokenizerTables>> load_tokenizer_tables(std::string_view json) {
  auto tables = read_tokenizer_json(json);
  if (tables) return std::make_shared<TokenizerTables>(std::move(*tables));
  tables.error().message = "tokenizer.json: " + tables.error().message;
  return tl::unexpected<base::Error>(std::move(tables.error()));
}

Result<std::shared_ptr<TokenizerTables>> load_tokenizer_tables(const std::filesystem::path& path) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, io::read_whole_file(path, kMaxFileBytes));
  return load_tokenizer_tables(std::string_view(text));
}

Result<Tokenizer> Tokenizer::parse(std::string_view json) {
  TANDEM_ASSIGN_OR_RETURN(auto tables, load_tokenizer_tables(json));
  return Tokenizer(std::move(tables));
}

Result<Tokenizer> Tokenizer::load(const std::filesystem::path& tokenizer_json) {
  TANDEM_ASSIGN_OR_RETURN(auto tables, load_tokenizer_tables(tokenizer_json));
  return Tokenizer(std::move(tables));
}

std::vector<int32_t> Tokenizer::encode_counted(std::string_view text, SpecialTokens mode,
                                               MergeStats& stats) const {
  std::string storage;
  text = repair_utf8(text, storage);
  const TrustedRange all{0, text.size()};
  const std::span<const TrustedRange> trusted(&all, mode == SpecialTokens::kEnabled ? 1 : 0);
  return Encoder(*tables_, trusted, stats).encode(text);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, SpecialTokens mode) const {
  MergeStats stats;
  return encode_counted(text, mode, stats);
}

std::vector<int32_t> Tokenizer::encode_segments(std::span<const TextSegment> segments) const {
  std::string joined, storage;
  std::vector<TrustedRange> trusted;
  for (const TextSegment& segment : segments) {
    const size_t begin = joined.size();
    joined += repair_utf8(segment.text, storage);
    if (!segment.trusted || joined.size() == begin) continue;
    if (!trusted.empty() && trusted.back().end == begin) {
      trusted.back().end = joined.size();
    } else {
      trusted.push_back({begin, joined.size()});
    }
  }
  MergeStats stats;
  return Encoder(*tables_, trusted, stats).encode(joined);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  Detokenizer detokenizer(*this, skip_special_tokens);
  std::string text = detokenizer.push(ids);
  return text += detokenizer.finish();
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  return tables_->tokens.find(token);
}

std::string_view Tokenizer::id_to_token(int32_t id) const {
  return tables_->tokens.text(id);
}

bool Tokenizer::is_special(int32_t id) const {
  return tables_->is_special(id);
}

int32_t Tokenizer::vocab_size() const {
  return tables_->tokens.size();
}

std::string_view Tokenizer::piece(int32_t id) const {
  return id >= 0 && id < vocab_size() ? tables_->pieces[id] : std::string_view();
}

int Tokenizer::byte_value(int32_t id) const {
  return id >= 0 && id < vocab_size() ? tables_->byte_values[static_cast<size_t>(id)] : -1;
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return tables_->bos;
}
std::optional<int32_t> Tokenizer::eos_id() const {
  return tables_->eos;
}
std::optional<int32_t> Tokenizer::pad_id() const {
  return tables_->pad;
}

std::vector<int32_t> Tokenizer::special_ids() const {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < vocab_size(); ++id) {
    if (is_special(id)) ids.push_back(id);
  }
  return ids;
}

}  // namespace tandem::text
