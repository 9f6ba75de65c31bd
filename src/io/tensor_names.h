// One canonical name per tensor, whichever spelling a file uses.
#pragma once

#include <string>
#include <string_view>

namespace tandem::io {

// Without the prefixes model., language_model., model.language_model., language_model.model.:
// "layers.3.mlp.up_proj.weight", "pre_projection.weight", "lm_head.weight".
std::string canonical_tensor_name(std::string_view stored_name);

// Vision and audio tensors, which a text-only run skips.
bool is_media_tensor(std::string_view stored_name);

// The prefix a file uses before `canonical_name`; empty when the name does not end with it.
std::string spelling_prefix(std::string_view stored_name, std::string_view canonical_name);

// What `canonical_name` would be called in a file whose layer tensors have `prefix`.
std::string stored_spelling(std::string_view canonical_name, std::string_view prefix);

// Why Tandem has no use for a tensor of this name; empty when nothing more is known.
std::string hint_for_unknown_tensor(std::string_view canonical_name);

}  // namespace tandem::io
