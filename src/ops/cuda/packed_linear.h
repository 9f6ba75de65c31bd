// Weights as the product kernel reads them, packed once when they are loaded.
//
// A set is 128 output features; a block is 128 features x 32 inputs of it. Blocks lie one after the
// other, inputs first, and each is in the order in which the tensor cores take its values, so that
// any share of the weights is one run of bytes:
//   data[num_sets][in / 32][8 groups of 16 features][32 lanes][16 E4M3 | 16 BF16]
// A lane's bytes are its registers of wgmma's left operand in their order.
// Which thread block works on which run depends on the shape and the number of multiprocessors
// alone, never on the rows: a row's result is the same whatever rides with it.
#pragma once

#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/partials.cuh"

namespace tandem::ops::cuda {

// Of a weight, and of the rows that it is multiplied with.
enum class PackedType {
  kFp8,         // both E4M3
  kBF16,        // both BF16
  kFp8Weights,  // E4M3, and rows of BF16: widened on their way to the tensor cores
  kIntegers,    // sign and 7 bits, and rows of BF16: a screen of a head (head_screen.h)
};

// The largest number of rows of one product; more rows take several.
inline constexpr int kMaxProductRows = 192;

struct PackedLinear {
  PackedType type = PackedType::kFp8;
  bool gated = false;  // gate and up, in the order of gated_feature()
  int out_features = 0;
  int in_features = 0;  // a multiple of 32
  int num_sets = 0;     // out_features / 128, rounded up; what no feature fills is zero
  int set_blocks = 0;   // in_features / 32
  int num_shares = 0;   // thread blocks of the product
  int max_pieces = 1;   // most shares that have a part of one set
  DeviceBuffer data;

  int64_t total_blocks() const { return static_cast<int64_t>(num_sets) * set_blocks; }
  int64_t block_bytes() const { return type == PackedType::kBF16 ? 8192 : 4096; }
  // Of the operand, for each input: 1 or 2.
  int row_value_bytes() const { return type == PackedType::kFp8 ? 1 : 2; }
  int64_t size_bytes() const { return total_blocks() * block_bytes(); }
  // FP32 partial sums of a product with num_rows rows (a multiple of 8).
  int64_t partial_bytes(int num_rows) const {
    return static_cast<int64_t>(num_sets) * max_pieces * num_rows * kSetColumns * 4;
  }
  Partials partials(const float* data_in, int num_rows) const {
    return {data_in,    num_rows,   max_pieces,
            set_blocks, num_shares, static_cast<int>(total_blocks())};
  }
};

// Sizes and the division into shares; takes device memory for the weights.
PackedLinear make_packed_linear(PackedType type, int out_features, int in_features,
                                int num_multiprocessors);
// The same without memory: what it will take.
PackedLinear plan_packed_linear(PackedType type, int out_features, int in_features,
                                int num_multiprocessors);
// For gate and up of a feed-forward block, `intermediate` features each, a multiple of 16.
PackedLinear make_gated_linear(PackedType type, int intermediate, int in_features,
                               int num_multiprocessors);

// Packs `num_rows` rows of a row-major weight [*, in_features] that lie in device memory as
// features first_feature, first_feature + 1, ... first_feature is a multiple of 16. Features of up
// follow those of gate.
void pack_rows(const Stream& stream, const PackedLinear& weight, const void* rows,
               int first_feature, int num_rows);

// BF16 rows [num_rows, in_features] on the device as E4M3 with a scale for each: scales[r] = the
// largest magnitude / 448, 1 of a row of zeros; codes = e4m3(x / scale), nearest even. What is not
// finite makes its row's scale NaN.
void round_rows(const Stream& stream, const void* rows, int num_rows, int in_features,
                uint8_t* codes, float* scales);

// The same as integers of sign and 7 bits: scales[r] = the largest magnitude / 127, and errors[r]
// bounds |w - scale codes| (Euclidean), and 2^-11 |w| for the rounding of FP32 sums over a row,
// which tests hold to 2^-17 of its magnitudes: |error of a logit| <= errors[r] |x|. What is not
// finite makes its row's scale NaN and its error infinite; so do weights near 1e17.
void round_to_integers(const Stream& stream, const void* rows, int num_rows, int in_features,
                       uint8_t* codes, float* scales, float* errors);

// Random weights of plausible size, made where they lie: for benchmarks.
void fill_random(const Stream& stream, const PackedLinear& weight, uint64_t seed);

// Rows [num_rows, in] BF16 as an operand; input_scale as in Operand. For tests and for inputs that
// no kernel made.
void rows_to_operand(const Stream& stream, const uint16_t* rows, int num_rows, int in_features,
                     float input_scale, void* operand, int num_tiles);

// What a kernel starts behind. While small kernels work, a product's copies ahead are held back:
// every read of theirs would wait behind them. Another product is not delayed by what it would read
// itself.
enum class Follows { kSmallKernel, kProduct };

// partial sums of operand x weight^T. operand: `num_tiles` tiles of 8 rows (1, 2, 4, 8, 12, 16, 20
// or 24), see operand.cuh; partials: weight.partial_bytes(8 * num_tiles).
// The sum over `in` runs in index order within a share. Sums of E4M3 products keep some 13 bits in
// the tensor cores: they are added to FP32 registers at least every 128 inputs.
void product(const Stream& stream, const PackedLinear& weight, const void* operand, int num_tiles,
             float* partials, Follows follows = Follows::kSmallKernel);

}  // namespace tandem::ops::cuda
