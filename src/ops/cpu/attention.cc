#include <algorithm>
#include <vector>

#include "ops/cpu/cpu.h"
#include "ops/cpu/scratch.h"
#include "ops/parallel.h"

namespace tandem::ops::cpu {
namespace {

// Rows of one sequence that are worked on together, so that a block of keys is read from memory
// once for all of them.
constexpr int64_t kRowsPerItem = 16;

Element element_of(core::DType dtype) {
  if (dtype == core::DType::kF32) return Element::kF32;
  return dtype == core::DType::kBF16 ? Element::kBF16 : Element::kFp8;
}

AttentionJob make_job(const core::TensorView& q, std::span<const int32_t> sequences,
                      std::span<const int32_t> last_keys, int64_t window, const KvPlaces& places,
                      const KvView& kv, const core::TensorView& out) {
  AttentionJob job;
  job.element = element_of(kv.k.dtype);
  job.k = kv.k.data;
  job.v = kv.v.data;
  job.k_stride = kv.k.row_stride;
  job.v_stride = kv.v.row_stride;
  job.k_scale = job.element == Element::kFp8 ? kv.k_scale : 1.0F;
  job.v_scale = job.element == Element::kFp8 ? kv.v_scale : 1.0F;
  job.head_dim = q.shape[2];
  job.group = q.shape[1] / kv.k.shape[1];
  job.q = rows_of(q);
  job.out = rows_of(out);
  job.sequences = sequences.data();
  job.last_keys = last_keys.data();
  job.window = window;
  job.block_table = places.block_table.data();
  job.max_blocks = places.max_blocks;
  job.block_size = places.block_size;
  job.ring_len = places.ring_len;
  return job;
}

// Multiply-adds of the whole call.
int64_t work_of(const core::TensorView& q, std::span<const int32_t> last_keys, int64_t window) {
  int64_t keys = 0;
  for (const int32_t last_key : last_keys) {
    const int64_t seen = std::max<int64_t>(last_key + 1, 0);
    keys += window == 0 ? seen : std::min(seen, window);
  }
  return 2 * keys * q.shape[1] * q.shape[2];
}

// Neighbouring rows of one sequence, times KV heads, times pieces of a group of heads. How they are
// cut changes nothing in the result.
std::vector<AttentionItem> make_items(std::span<const int32_t> sequences, int64_t num_kv_heads,
                                      int64_t group, int64_t threads) {
  std::vector<AttentionItem> runs;
  const auto n = static_cast<int64_t>(sequences.size());
  for (int64_t begin = 0; begin < n;) {
    int64_t end = begin + 1;
    while (end < n && end - begin < kRowsPerItem &&
           sequences[static_cast<size_t>(end)] == sequences[static_cast<size_t>(begin)])
      ++end;
    runs.push_back({begin, end, 0, 0, group});
    begin = end;
  }
  const auto whole = static_cast<int64_t>(runs.size()) * num_kv_heads;
  const int64_t pieces = std::clamp<int64_t>((threads + whole - 1) / whole, 1, group);
  std::vector<AttentionItem> items;
  for (const AttentionItem& run : runs)
    for (int64_t kv_head = 0; kv_head < num_kv_heads; ++kv_head)
      for (int64_t piece = 0; piece < pieces; ++piece)
        items.push_back({run.row_begin, run.row_end, kv_head, group * piece / pieces,
                         group * (piece + 1) / pieces});
  return items;
}

}  // namespace

void kv_write(const Context& context, const core::TensorView& k, const core::TensorView& v,
              std::span<const int32_t> sequences, std::span<const int32_t> positions,
              const KvPlaces& places, const KvView& kv) {
  const int64_t cols = k.cols();
  const auto put = [&](const core::TensorView& from, int64_t row, const core::TensorView& to,
                       int64_t slot, float scale) {
    if (to.dtype == core::DType::kF8E4M3)
      kernels().store_fp8(rows_of(from), row, scale,
                          static_cast<uint8_t*>(to.data) + slot * to.row_stride, cols);
    else
      kernels().copy_row(rows_of(from), row, 1.0F, rows_of(to), slot, cols);
  };
  parallel_for(context, k.rows(), (1 << 14) / (cols + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const auto row = static_cast<size_t>(r);
      const int64_t slot = places.slot(sequences[row], positions[row]);
      put(k, r, kv.k, slot, kv.k_scale);
      put(v, r, kv.v, slot, kv.v_scale);
    }
  });
}

void attention(const Context& context, const core::TensorView& q,
               std::span<const int32_t> sequences, std::span<const int32_t> last_keys,
               int64_t window, const KvPlaces& places, const KvView& kv,
               const core::TensorView& out) {
  if (q.rows() == 0) return;
  constexpr int64_t kMinWork = 1 << 16;
  const AttentionJob job = make_job(q, sequences, last_keys, window, places, kv, out);
  const int64_t work = work_of(q, last_keys, window);
  const int64_t threads = work < 2 * kMinWork ? 1 : num_threads(context);
  const std::vector<AttentionItem> items = make_items(sequences, kv.k.shape[1], job.group, threads);
  // Strided: in a prefill later rows have more keys, so that neighbours go to different threads.
  parallel_for(context, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t strand = begin; strand < end; ++strand)
      for (auto i = static_cast<size_t>(strand); i < items.size();
           i += static_cast<size_t>(threads)) {
        const AttentionItem& item = items[i];
        const int64_t pairs = (item.row_end - item.row_begin) * (item.head_end - item.head_begin);
        kernels().attention(
            job, item, scratch(ScratchUse::kAttention, attention_scratch(pairs, job.head_dim)));
      }
  });
}

}  // namespace tandem::ops::cpu
