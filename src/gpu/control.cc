#include "gpu/control.h"

#include <algorithm>

#include "base/check.h"

namespace tandem::gpu {
namespace {

// Lays the arrays out one after the other; every one begins at 16 bytes. Returns how many integers
// they take.
size_t lay_out(const ControlSizes& sizes, int32_t* block, ControlView& view) {
  size_t used = 0;
  const auto take = [&](int32_t*& pointer, int64_t count) {
    pointer = block + used;
    used += static_cast<size_t>((count + 3) / 4 * 4);
  };
  const int64_t rows = int64_t{kPassRows} * sizes.max_passes;
  for (int32_t** pointer :
       {&view.tokens, &view.positions, &view.sequences, &view.tile_first_rows, &view.tile_num_rows})
    take(*pointer, rows);
  for (int32_t** pointer :
       {&view.first_rows, &view.wanted, &view.num_drafts, &view.slots, &view.draft_tokens,
        &view.draft_positions, &view.draft_last_keys, &view.draft_sequences,
        &view.draft_tile_first_rows, &view.draft_tile_num_rows})
    take(*pointer, sizes.max_entries);
  take(view.ring_table, int64_t{sizes.max_entries} * sizes.ring_blocks);
  take(view.page_table, int64_t{sizes.max_entries} * sizes.page_blocks);
  if (sizes.max_wide_passes == 0) return used;
  // Last, and copied only where there are prompts.
  take(view.sources, rows);
  for (int32_t** pointer : {&view.wide_tokens, &view.wide_positions, &view.wide_sequences})
    take(*pointer, int64_t{sizes.max_wide_passes} * sizes.wide_rows);
  for (int32_t** pointer : {&view.wide_tile_first_rows, &view.wide_tile_num_rows,
                            &view.wide_tile_begins, &view.wide_tile_ends})
    take(*pointer, int64_t{sizes.max_wide_passes} * sizes.max_wide_tiles);
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

}  // namespace

Control::Control(const ControlSizes& sizes)
    : sizes_(sizes), host_block_(block_bytes(sizes)), device_block_(block_bytes(sizes)) {
  lay_out(sizes, host_block_.as<int32_t>(), host_);
  lay_out(sizes, device_block_.as<int32_t>(), device_);
  std::fill_n(host_block_.as<int32_t>(), host_block_.size_bytes() / sizeof(int32_t), 0);
}

void Control::fill(const speculation::SpecBatch& batch, const StepLayout& layout,
                   int draft_position_offset) {
  TANDEM_CHECK_LE(layout.passes.size(), static_cast<size_t>(sizes_.max_passes));
  TANDEM_CHECK_LE(batch.sequences.size(), static_cast<size_t>(sizes_.max_entries));
  for (size_t p = 0; p < layout.passes.size(); ++p)
    fill_pass(layout.passes[p], static_cast<int64_t>(p) * kPassRows, host_);
  TANDEM_CHECK_LE(layout.wide.size(), static_cast<size_t>(sizes_.max_wide_passes));
  has_wide_ = !layout.wide.empty();
  for (size_t p = 0; p < layout.wide.size(); ++p)
    fill_wide(layout.wide[p], static_cast<int64_t>(p));
  for (int i = 0; i < sizes_.max_entries; ++i) {
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
  fill_tables(batch);
}

void Control::fill_wide(const PlannedWidePass& pass, int64_t index) {
  TANDEM_CHECK_LE(pass.rows.size(), static_cast<size_t>(sizes_.wide_rows));
  TANDEM_CHECK_LE(pass.tiles.size(), static_cast<size_t>(sizes_.max_wide_tiles));
  const int64_t row = index * sizes_.wide_rows;
  for (size_t i = 0; i < pass.rows.size(); ++i) {
    host_.wide_tokens[row + static_cast<int64_t>(i)] = pass.rows[i].token;
    host_.wide_positions[row + static_cast<int64_t>(i)] = pass.rows[i].position;
    host_.wide_sequences[row + static_cast<int64_t>(i)] = pass.rows[i].sequence;
  }
  const int64_t tile = index * sizes_.max_wide_tiles;
  for (size_t i = 0; i < pass.tiles.size(); ++i) {
    const int64_t at = tile + static_cast<int64_t>(i);
    host_.wide_tile_first_rows[at] = pass.tiles[i].first_row;
    host_.wide_tile_num_rows[at] = pass.tiles[i].num_rows;
    host_.wide_tile_begins[at] = pass.tiles[i].begin;
    host_.wide_tile_ends[at] = pass.tiles[i].end;
  }
}

void Control::fill_tables(const speculation::SpecBatch& batch) {
  const auto copy = [&](const ops::KvPlaces& places, int32_t* table, int columns) {
    for (size_t s = 0; s < batch.sequences.size(); ++s) {
      const auto row = places.block_table.subspan(s * static_cast<size_t>(places.max_blocks),
                                                  static_cast<size_t>(places.max_blocks));
      // What lies beyond the table's columns belongs to no position a sequence may reach.
      const size_t count = std::min(row.size(), static_cast<size_t>(columns));
      std::copy_n(row.begin(), count, table + s * static_cast<size_t>(columns));
    }
  };
  copy(batch.ring, host_.ring_table, sizes_.ring_blocks);
  copy(batch.pages, host_.page_table, sizes_.page_blocks);
}

void Control::copy_to_device(const ops::cuda::Stream& stream) const {
  const size_t bytes = host_block_.size_bytes();
  const size_t wide_begin =
      host_.sources == nullptr
          ? bytes
          : static_cast<size_t>(host_.sources - host_block_.as<int32_t>()) * sizeof(int32_t);
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(device_block_.data(), host_block_.as<void>(),
                                    has_wide_ ? bytes : wide_begin, cudaMemcpyHostToDevice,
                                    stream.handle));
}

}  // namespace tandem::gpu
