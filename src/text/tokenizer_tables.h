// What a loaded tokenizer consists of, and the reader that fills it from tokenizer.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/token_table.h"

namespace tandem::text {

// One string per id, side by side.
class PieceTable {
 public:
  void append(std::string_view piece) {
    text_ += piece;
    ends_.push_back(text_.size());
  }
  std::string_view operator[](int32_t id) const {
    const auto index = static_cast<size_t>(id);
    const size_t begin = index == 0 ? 0 : ends_[index - 1];
    return std::string_view(text_).substr(begin, ends_[index] - begin);
  }

 private:
  std::string text_;
  std::vector<size_t> ends_;  // [size]
};

struct TokenizerTables {
  TokenTable tokens;                 // id <-> spelling, added tokens included
  PieceTable pieces;                 // id -> what it decodes to; byte tokens: nothing
  std::vector<uint8_t> special;      // [tokens.size()] 0 or 1
  std::vector<int16_t> byte_values;  // [tokens.size()] -1 for other than byte tokens
  TokenTrie raw_added;               // added tokens matched before normalisation
  TokenTrie normalized_added;        // added tokens matched after it; never special
  Normalizer normalizer;
  BpeModel bpe;
  std::optional<int32_t> bos;
  std::optional<int32_t> eos;
  std::optional<int32_t> pad;

  bool is_special(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < special.size() &&
           special[static_cast<size_t>(id)] != 0;
  }
};

base::Result<TokenizerTables> read_tokenizer_json(std::string_view json);

// The same, with "tokenizer.json: " before the message.
base::Result<std::shared_ptr<TokenizerTables>> load_tokenizer_tables(std::string_view json);
base::Result<std::shared_ptr<TokenizerTables>> load_tokenizer_tables(
    const std::filesystem::path& path);

}  // namespace tandem::text
