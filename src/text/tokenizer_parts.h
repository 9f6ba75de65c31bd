// The small parts of a tokenizer.json around its model: which forms are understood, which are not.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/normalizer.h"

namespace tandem::text {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool normalized = false;
};

// (pattern, content) pairs that every token's spelling goes through, in order.
using DecoderReplacements = std::vector<std::pair<std::string, std::string>>;

base::Result<std::vector<AddedToken>> read_added_tokens(const nlohmann::json& added_tokens);
base::Result<Normalizer> read_normalizer(const nlohmann::json& normalizer);
base::Result<DecoderReplacements> read_decoder(const nlohmann::json& decoder);
// The Split of the family never fires, since the normalizer removes what it splits at.
base::Status check_pre_tokenizer(const nlohmann::json& part, const Normalizer& normalizer);
// Only forms that add no token.
base::Status check_post_processor(const nlohmann::json& part);

// For messages: text of the file, cut to a readable length.
std::string quote(std::string_view text);

}  // namespace tandem::text
