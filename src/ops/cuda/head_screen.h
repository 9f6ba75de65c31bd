// The greedy token of a head without reading the head. A screen is the head's weights as integers
// of 8 bits, a scale for each token, and a bound for each token on what rounding took from it. The
// product with the screen gives every logit up to
//   |logit(id) - screened(id)| <= errors[id] |x|      (Cauchy-Schwarz; packed_linear.h)
// so only ids with screened + errors |x| >= the largest screened - errors |x| can come first: with
// 262,144 tokens a few dozen of a row. Their logits are then computed from the head itself, in the
// order of sums of product(), and the likeliest is the token that head_product() would have given.
// Half the bytes, no other result. Where the bound says little (a row that is not finite, a row of
// zeros) many ids remain, and it takes longer.
#pragma once

#include "ops/cuda/head_product.h"

namespace tandem::ops::cuda {

struct HeadScreen {
  const PackedLinear* weight = nullptr;  // kIntegers, of the head's shape and multiprocessors
  const float* scales = nullptr;  // [vocab, in whole sets], as round_to_integers() leaves them
  const float* errors = nullptr;  // [vocab, in whole sets]
  void* workspace = nullptr;      // screen_workspace_bytes(); zeros at first
};

size_t screen_workspace_bytes(const PackedLinear& screen);

// Whether a head of BF16 and its screen take what head_product() takes.
bool takes_screened_head(const PackedLinear& head, const PackedLinear& screen,
                         const SideProduct& side, const HeadLogits& logits);

// Up to eight rows, as head_product(), in two kernels. argmax.exchange:
// head_exchange_bytes(screen).
void screened_head(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                   const SideProduct& side, const void* operand, const HeadArgmax& argmax);
void screened_head(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                   const SideProduct& side, const NormedRows& rows, const HeadArgmax& argmax);

// The same for more rows, as product() and argmax_rows(). operand: num_tiles tiles of 8 rows, 2 or
// 4; where each set of the screen belongs to one share also 8, and there in two kernels instead of
// three (head_listing.cu). Of 96 rows, arithmetic and what is confirmed take as long as the bytes
// that are spared. partials: screen.weight->partial_bytes(8 * num_tiles).
inline constexpr int kMaxScreenedTiles = 4;
inline constexpr int kMaxListedTiles = 8;
bool takes_screened_rows(const PackedLinear& head, const PackedLinear& screen, int num_tiles);
void screened_rows(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                   const void* operand, int num_tiles, float* partials, const HeadArgmax& argmax);

}  // namespace tandem::ops::cuda
