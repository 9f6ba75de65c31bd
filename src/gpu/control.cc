#include "gpu/control.h"

#include <algorithm>

#include "base/check.h"
#include "ops/cuda/fetch.h"

namespace tandem::gpu {
namespace {

// Lays the arrays out one after the other; every one begins at 16 bytes. Returns how many integers
// they take, which is more for no size that is less.
size_t lay_out(const ControlSizes& sizes, int32_t* block, ControlView& view) {
  size_t used = 0;
  const auto take = [&](int32_t*& pointer, int64_t count) {
    pointer = block + used;
    used += static_cast<size_t>((count + 3) / 4 * 4);
  };
  const int64_t rows = int64_t{kPassRows} * sizes.passes;
  for (int32_t** pointer :
       {&view.tokens, &view.positions, &view.sequences, &view.tile_first_rows, &view.tile_num_rows})
    take(*pointer, rows);
  for (int32_t** pointer :
       {&view.first_rows, &view.wanted, &view.num_drafts, &view.slots, &view.draft_tokens,
        &view.draft_positions, &view.draft_last_keys, &view.draft_sequences,
        &view.draft_tile_first_rows, &view.draft_tile_num_rows})
    take(*pointer, sizes.entries);
  take(view.ring_table, int64_t{sizes.sequences} * sizes.ring_blocks);
  take(view.page_table, int64_t{sizes.sequences} * sizes.page_blocks);
  if (sizes.draws > 0) {
    int32_t* rules = nullptr;
    take(rules, int64_t{sizes.draws} * static_cast<int64_t>(sizeof(ops::cuda::DrawRules) / 4));
    view.draw_rules = reinterpret_cast<ops::cuda::DrawRules*>(rules);
  }
  if (sizes.wide_passes == 0) return used;
  take(view.sources, rows);
  for (int32_t** pointer : {&view.wide_tokens, &view.wide_positions, &view.wide_sequences})
    take(*pointer, int64_t{sizes.wide_passes} * sizes.wide_rows);
  for (int32_t** pointer :
       {&view.wide_tile_first_rows, &view.wide_tile_num_rows, &view.wide_tile_begins,
        &view.wide_tile_ends, &view.wide_tile_widened_rows})
    take(*pointer, int64_t{sizes.wide_passes} * sizes.wide_tiles);
  return used;
}

size_t block_bytes(const ControlSizes& sizes) {
  ControlView view;
  int32_t origin = 0;
  return lay_out(sizes, &origin, view) * sizeof(int32_t);
}

void fill_pass(const PlannedPass& pass, int64_t offset, const ControlView& view) {
  for (int64_t i = 0; i < kPassRows; ++i) {
    const bool real = i < static_cast<int64_t>(pass.rows.size());
    const PlannedRow row = real ? pass.rows[static_cast<size_t>(i)] : PlannedRow{};
    view.tokens[offset + i] = row.token;
    view.positions[offset + i] = row.position;
    view.sequences[offset + i] = row.sequence;
    const bool is_tile = i < static_cast<int64_t>(pass.tiles.size());
    const PlannedTile tile = is_tile ? pass.tiles[static_cast<size_t>(i)] : PlannedTile{};
    view.tile_first_rows[offset + i] = tile.first_row;
    view.tile_num_rows[offset + i] = tile.num_rows;
    if (view.sources != nullptr)
      view.sources[offset + i] = real && pass.wide >= 0 ? pass.sources[static_cast<size_t>(i)] : -1;
  }
}

// How a sampler that is_plain() chooses.
ops::cuda::DrawRules draw_rules(const sampling::Sampler& sampler) {
  const sampling::Truncation truncation = sampler.truncation();
  if (sampler.params().greedy()) return {};
  return {.seed = sampler.seed(),
          .temperature = truncation.temperature,
          .top_p = truncation.top_p,
          .min_p_depth = sampling::min_p_depth(truncation),
          .top_k = static_cast<int32_t>(truncation.top_k),
          .unused = 0};
}

}  // namespace

Control::Control(const ControlSizes& most, int64_t block_size)
    : most_(most),
      block_size_(block_size),
      host_block_(block_bytes(most)),
      device_block_(block_bytes(most)) {}

ControlSizes Control::sizes_of(const speculation::SpecBatch& batch, const StepLayout& layout,
                               bool draws) const {
  int64_t max_keys = 1;
  for (const PlannedPass& pass : layout.passes) max_keys = std::max(max_keys, pass.max_keys);
  for (const PlannedWidePass& pass : layout.wide)
    for (const PlannedWideTile& tile : pass.tiles) max_keys = std::max<int64_t>(max_keys, tile.end);
  const int64_t page_blocks = (padded(max_keys) + block_size_ - 1) / block_size_;
  const auto entries = static_cast<int>(layout.entries.size());
  return {.passes = static_cast<int>(layout.passes.size()),
          .entries = entries <= kPassRows ? padded_rows(entries)
                                          : (entries + kPassRows - 1) / kPassRows * kPassRows,
          .sequences = static_cast<int>(batch.sequences.size()),
          .ring_blocks = most_.ring_blocks,
          .page_blocks = static_cast<int>(std::min<int64_t>(page_blocks, most_.page_blocks)),
          .draws = draws ? static_cast<int>(batch.sequences.size()) : 0,
          .wide_passes = static_cast<int>(layout.wide.size()),
          .wide_rows = most_.wide_rows,
          .wide_tiles = most_.wide_tiles};
}

void Control::lay_out_for(const ControlSizes& sizes) {
  TANDEM_CHECK_LE(sizes.passes, most_.passes);
  TANDEM_CHECK_LE(sizes.entries, most_.entries);
  TANDEM_CHECK_LE(sizes.sequences, most_.sequences);
  TANDEM_CHECK_LE(sizes.draws, most_.draws);
  TANDEM_CHECK_LE(sizes.wide_passes, most_.wide_passes);
  sizes_ = sizes;
  host_ = device_ = {};
  size_bytes_ = lay_out(sizes, host_block_.as<int32_t>(), host_) * sizeof(int32_t);
  lay_out(sizes, device_block_.as<int32_t>(), device_);
}

void Control::fill(const speculation::SpecBatch& batch, const StepLayout& layout,
                   int draft_position_offset, bool draws) {
  lay_out_for(sizes_of(batch, layout, draws));
  for (size_t p = 0; p < layout.passes.size(); ++p)
    fill_pass(layout.passes[p], static_cast<int64_t>(p) * kPassRows, host_);
  for (size_t p = 0; p < layout.wide.size(); ++p)
    fill_wide(layout.wide[p], static_cast<int64_t>(p));
  fill_entries(batch, layout, draft_position_offset);
  if (draws) fill_draws(batch, layout);
  fill_tables(batch);
}

void Control::fill_entries(const speculation::SpecBatch& batch, const StepLayout& layout,
                           int draft_position_offset) {
  for (int i = 0; i < sizes_.entries; ++i) {
    const bool real = i < static_cast<int>(layout.entries.size());
    const bool drafts = i < layout.num_drafting;
    host_.num_drafts[i] = 0;
    host_.slots[i] = -1;
    host_.draft_sequences[i] = -1;
    host_.draft_tile_first_rows[i] = i % kPassRows;
    host_.draft_tile_num_rows[i] = drafts ? 1 : 0;
    host_.draft_last_keys[i] = -1;
    host_.draft_tokens[i] = 0;
    host_.draft_positions[i] = 0;
    host_.wanted[i] = 0;
    host_.first_rows[i] = 0;
    if (!real) continue;
    const PlannedEntry& entry = layout.entries[static_cast<size_t>(i)];
    const speculation::SpecSequence& sequence = batch.sequences[entry.sequence];
    host_.first_rows[i] = entry.first_row;
    host_.wanted[i] = entry.num_drafts;
    host_.slots[i] = sequence.state_slot;
    if (!drafts) continue;
    const auto last_key = static_cast<int32_t>(sequence.start_position) - 1;  // L - 2
    host_.draft_tokens[i] = sequence.tokens.back();
    host_.draft_positions[i] = last_key + draft_position_offset;
    host_.draft_last_keys[i] = last_key;
    host_.draft_sequences[i] = static_cast<int32_t>(entry.sequence);
  }
}

void Control::fill_wide(const PlannedWidePass& pass, int64_t index) {
  TANDEM_CHECK_LE(pass.rows.size(), static_cast<size_t>(sizes_.wide_rows));
  TANDEM_CHECK_LE(pass.tiles.size(), static_cast<size_t>(sizes_.wide_tiles));
  const int64_t row = index * sizes_.wide_rows;
  for (size_t i = 0; i < pass.rows.size(); ++i) {
    host_.wide_tokens[row + static_cast<int64_t>(i)] = pass.rows[i].token;
    host_.wide_positions[row + static_cast<int64_t>(i)] = pass.rows[i].position;
    host_.wide_sequences[row + static_cast<int64_t>(i)] = pass.rows[i].sequence;
  }
  const int64_t tile = index * sizes_.wide_tiles;
  for (size_t i = 0; i < pass.tiles.size(); ++i) {
    const int64_t at = tile + static_cast<int64_t>(i);
    host_.wide_tile_first_rows[at] = pass.tiles[i].first_row;
    host_.wide_tile_num_rows[at] = pass.tiles[i].num_rows;
    host_.wide_tile_begins[at] = pass.tiles[i].begin;
    host_.wide_tile_ends[at] = pass.tiles[i].end;
    host_.wide_tile_widened_rows[at] = pass.tiles[i].widened_row;
  }
}

void Control::fill_draws(const speculation::SpecBatch& batch, const StepLayout& layout) {
  std::fill_n(host_.draw_rules, sizes_.draws, ops::cuda::DrawRules{});
  for (const PlannedEntry& entry : layout.entries)
    host_.draw_rules[entry.sequence] = draw_rules(*batch.sequences[entry.sequence].sampler);
}

void Control::fill_tables(const speculation::SpecBatch& batch) {
  const auto copy = [&](const ops::KvPlaces& places, int32_t* table, int columns) {
    for (size_t s = 0; s < batch.sequences.size(); ++s) {
      const auto row = places.blocks_of(s);
      // What lies beyond the table's columns belongs to no position that a row of the step sees.
      const auto known = row.first(std::min(row.size(), static_cast<size_t>(columns)));
      int32_t* const own = table + s * static_cast<size_t>(columns);
      // Mostly as in the step before. What the device has read is slower to write than to read.
      if (!std::ranges::equal(known, std::span(own, known.size()))) std::ranges::copy(known, own);
    }
  };
  copy(batch.ring, host_.ring_table, sizes_.ring_blocks);
  copy(batch.pages, host_.page_table, sizes_.page_blocks);
}

void Control::copy_to_device(const ops::cuda::Stream& stream, uint64_t* fetched) const {
  ops::cuda::fetch(stream, host_block_.as<void>(), device_block_.data(), size_bytes_, fetched);
}

}  // namespace tandem::gpu
