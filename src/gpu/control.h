// What the host tells the device about a step, in one block of integers that a kernel fetches at
// the step's start; and the same block as pointers that kernels take. A block is as long as its
// step needs: the places depend on ControlSizes alone, so a graph of a step can be replayed with
// other numbers as long as these are equal.
#pragma once

#include <cstdint>
#include <span>

#include "gpu/step_plan.h"
#include "ops/cuda/device.h"
#include "ops/cuda/draw.h"
#include "ops/cuda/rows.h"

namespace tandem::gpu {

// Of one step; or the most of any step.
struct ControlSizes {
  int passes = 1;
  int entries = 1;  // sequences that emit tokens, rounded up as passes of them are
  int sequences = 1;
  int ring_blocks = 1;  // per sequence
  int page_blocks = 1;  // per sequence
  int draws = 0;        // sequences, where any of them draws
  int wide_passes = 0;
  int wide_rows = 0;   // of a wide pass
  int wide_tiles = 0;  // of a wide pass
};

// Pointers into one block, on the host or on the device.
struct ControlView {
  // Verify rows and chunks, [passes * kPassRows].
  int32_t* tokens = nullptr;
  int32_t* positions = nullptr;
  int32_t* sequences = nullptr;
  int32_t* tile_first_rows = nullptr;
  int32_t* tile_num_rows = nullptr;
  // Entries, [entries].
  int32_t* first_rows = nullptr;
  int32_t* wanted = nullptr;      // drafts
  int32_t* num_drafts = nullptr;  // 0; counted on the device
  int32_t* slots = nullptr;       // of the state store; -1: no entry
  // The assistant's row of each entry, [entries].
  int32_t* draft_tokens = nullptr;
  int32_t* draft_positions = nullptr;
  int32_t* draft_last_keys = nullptr;
  int32_t* draft_sequences = nullptr;
  int32_t* draft_tile_first_rows = nullptr;
  int32_t* draft_tile_num_rows = nullptr;
  // Block tables, [sequences, ring_blocks] and [sequences, page_blocks].
  int32_t* ring_table = nullptr;
  int32_t* page_table = nullptr;
  // Null where none draws; [draws].
  ops::cuda::DrawRules* draw_rules = nullptr;
  // Null where no rows are those of prompts. Of the rows above that a wide pass made: which of its
  // rows, -1: none.
  int32_t* sources = nullptr;
  // Rows of prompts, [wide_passes, wide_rows], and their tiles, [wide_passes, wide_tiles].
  int32_t* wide_tokens = nullptr;
  int32_t* wide_positions = nullptr;
  int32_t* wide_sequences = nullptr;
  int32_t* wide_tile_first_rows = nullptr;
  int32_t* wide_tile_num_rows = nullptr;
  int32_t* wide_tile_begins = nullptr;
  int32_t* wide_tile_ends = nullptr;
  int32_t* wide_tile_widened_rows = nullptr;
};

class Control {
 public:
  // `most`: of any step; block_size: positions of a page.
  Control(const ControlSizes& most, int64_t block_size);

  // Lays the block out for this step and writes the host's. The device must have fetched the one
  // before. draft_position_offset as in SpeculativeStepOptions.
  // `draws`: some sequences draw their tokens on the device.
  void fill(const speculation::SpecBatch& batch, const StepLayout& layout,
            int draft_position_offset, bool draws);
  // `fetched`, in page-locked memory or null: the device's clock when the block was there.
  void copy_to_device(const ops::cuda::Stream& stream, uint64_t* fetched) const;

  // Of the step that was filled in last.
  const ControlView& device() const { return device_; }
  const ControlSizes& sizes() const { return sizes_; }
  const ControlSizes& most() const { return most_; }

 private:
  ControlSizes sizes_of(const speculation::SpecBatch& batch, const StepLayout& layout,
                        bool draws) const;
  void lay_out_for(const ControlSizes& sizes);
  void fill_entries(const speculation::SpecBatch& batch, const StepLayout& layout,
                    int draft_position_offset);
  void fill_wide(const PlannedWidePass& pass, int64_t index);
  void fill_draws(const speculation::SpecBatch& batch, const StepLayout& layout);
  void fill_tables(const speculation::SpecBatch& batch);

  ControlSizes most_, sizes_;
  int64_t block_size_;
  ops::cuda::PinnedBuffer host_block_;
  ops::cuda::DeviceBuffer device_block_;
  size_t size_bytes_ = 0;
  ControlView host_, device_;
};

}  // namespace tandem::gpu
