// The tokenizer of a model folder: tokenizer.json of the Gemma family (BPE with byte fallback).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/segment.h"

namespace tandem::text {

struct MergeStats;
struct TokenizerTables;

enum class SpecialTokens {
  kEnabled,   // a special token's spelling in the text becomes its id
  kDisabled,  // it becomes ordinary tokens: text from outside can never produce a special id
};

// Immutable; copies share the tables. Safe to use from many threads at once.
class Tokenizer {
 public:
  // Refuses what it would not encode exactly, as `tokenizer.json: where: expected X, got Y`.
  static base::Result<Tokenizer> load(const std::filesystem::path& tokenizer_json);
  static base::Result<Tokenizer> parse(std::string_view json);
  // tokenizer.json of a model folder, with the special token names of its tokenizer_config.json
  // (optional; the family's names otherwise).
  static base::Result<Tokenizer> load_for_model(const std::filesystem::path& model_dir);

  // No BOS is ever added. Invalid UTF-8 is read as Python's bytes.decode("utf-8", "replace")
  // would: one U+FFFD per maximal invalid subsequence.
  std::vector<int32_t> encode(std::string_view text, SpecialTokens mode) const;
  // The ids of the joined text, with special tokens matched in trusted segments only.
  std::vector<int32_t> encode_segments(std::span<const TextSegment> segments) const;
  // encode(), and how much work the merges took.
  std::vector<int32_t> encode_counted(std::string_view text, SpecialTokens mode,
                                      MergeStats& stats) const;

  // Ids outside the vocabulary are passed over. Bytes that form no UTF-8 character become U+FFFD,
  // one for each byte. Skipped special tokens do not end a run of bytes.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  std::optional<int32_t> token_to_id(std::string_view token) const;
  std::string_view id_to_token(int32_t id) const;  // empty if there is no such id
  bool is_special(int32_t id) const;
  int32_t vocab_size() const;  // largest id + 1

  // What a token adds to decoded text; empty for byte tokens.
  std::string_view piece(int32_t id) const;
  // The byte of a byte token, -1 for every other id.
  int byte_value(int32_t id) const;

  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> pad_id() const;
  std::vector<int32_t> special_ids() const;  // ascending

 private:
  explicit Tokenizer(std::shared_ptr<const TokenizerTables> tables) : tables_(std::move(tables)) {}

  std::shared_ptr<const TokenizerTables> tables_;
};

}  // namespace tandem::text
