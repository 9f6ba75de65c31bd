// Attention of few rows: what may be asked for, and its kernels over a BF16 cache.
#include "ops/cuda/attention.h"

#include "ops/cuda/attention_segments.cuh"

namespace tandem::ops::cuda {

namespace {

AttentionJob job_of(const Rows& rows, const QueryTiles& tiles, const Attention& job) {
  TANDEM_GPU_CHECK(job.num_kv_heads > 0 && job.num_heads % job.num_kv_heads == 0);
  TANDEM_GPU_CHECK(job.num_heads / job.num_kv_heads <= 16);
  TANDEM_GPU_CHECK(job.max_segments > 0 && tiles.num_tiles > 0);
  TANDEM_GPU_CHECK(rows.num_rows > 0 && rows.num_rows <= job.out.num_tiles * 8);
  TANDEM_GPU_CHECK(rows.num_rows <= kMaxEntries);
  TANDEM_GPU_CHECK(job.query_sums.sums.data == nullptr ||
                   (!job.has_fresh_keys && job.list == nullptr &&
                    attention_makes_queries(job.head_dim, job.num_heads / job.num_kv_heads)));
  AttentionJob all{job, rows, tiles, job.num_heads / job.num_kv_heads, job.num_kv_heads};
  all.by_group = Divisor(all.group);
  all.by_ring = Divisor(job.places.ring_len);
  all.by_block = Divisor(job.places.block_size);
  all.by_segments = Divisor(job.max_segments);
  all.sums = static_cast<uint16_t*>(job.workspace);
  all.totals = reinterpret_cast<float2*>(
      all.sums + static_cast<size_t>(rows.num_rows) * static_cast<size_t>(job.num_heads) *
                     static_cast<size_t>(job.max_segments) * static_cast<size_t>(job.head_dim));
  all.score_scale = job.kv.k_scale / job.query_scale;
  return all;
}

void launch_job(const Stream& stream, const AttentionJob& job) {
  if (job.attention.kv.is_fp8)
    segment::launch_e4m3(stream, job);
  else
    segment::launch_all<false>(stream, job);
}

}  // namespace

void attention(const Stream& stream, const Rows& rows, const QueryTiles& tiles,
               const Attention& job) {
  const AttentionJob all = job_of(rows, tiles, job);
  launch_job(stream, all);
  combine_attention(stream, all);
}

size_t attention_list_bytes() {
  return sizeof(SharedWork);
}

void list_attention(const Stream& stream, const Rows& rows, const QueryTiles& tiles,
                    const Attention& job) {
  TANDEM_GPU_CHECK(job.list != nullptr);
  AttentionJob all = job_of(rows, tiles, job);
  all.only_lists = true;
  launch_job(stream, all);
}

}  // namespace tandem::ops::cuda
