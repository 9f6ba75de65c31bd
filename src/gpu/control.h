// What the host tells the device about a step, in one block of integers that is copied at once; and
// the same block as pointers that kernels take. The places are fixed, so that a graph of a step can
// be replayed with other numbers.
#pragma once

#include <cstdint>
#include <span>

#include "gpu/step_plan.h"
#include "ops/cuda/device.h"
#include "ops/cuda/rows.h"

namespace tandem::gpu {

struct ControlSizes {
  int max_passes = 1;
  int max_entries = 1;  // sequences of a batch, a multiple of kPassRows
  int ring_blocks = 1;  // per sequence
  int page_blocks = 1;  // per sequence
  int max_wide_passes = 0;
  int wide_rows = 0;       // of a wide pass
  int max_wide_tiles = 0;  // of a wide pass
};

// Pointers into one block, on the host or on the device.
struct ControlView {
  // Verify rows and chunks, [max_passes * kPassRows].
  int32_t* tokens = nullptr;
  int32_t* positions = nullptr;
  int32_t* sequences = nullptr;
  int32_t* tile_first_rows = nullptr;
  int32_t* tile_num_rows = nullptr;
  // Entries, [max_entries].
  int32_t* first_rows = nullptr;
  int32_t* wanted = nullptr;      // drafts
  int32_t* num_drafts = nullptr;  // 0; counted on the device
  int32_t* slots = nullptr;       // of the state store; -1: no entry
  // The assistant's row of each entry, [max_entries].
  int32_t* draft_tokens = nullptr;
  int32_t* draft_positions = nullptr;
  int32_t* draft_last_keys = nullptr;
  int32_t* draft_sequences = nullptr;
  int32_t* draft_tile_first_rows = nullptr;
  int32_t* draft_tile_num_rows = nullptr;
  // Block tables, [max_entries, ring_blocks] and [max_entries, page_blocks].
  int32_t* ring_table = nullptr;
  int32_t* page_table = nullptr;
  // Null where prompts have no kernels of their own. Of the rows above that a wide pass made: which
  // of its rows, -1: none.
  int32_t* sources = nullptr;
  // Rows of prompts, [max_wide_passes, wide_rows], and their tiles, [max_wide_passes,
  // max_wide_tiles].
  int32_t* wide_tokens = nullptr;
  int32_t* wide_positions = nullptr;
  int32_t* wide_sequences = nullptr;
  int32_t* wide_tile_first_rows = nullptr;
  int32_t* wide_tile_num_rows = nullptr;
  int32_t* wide_tile_begins = nullptr;
  int32_t* wide_tile_ends = nullptr;
};

class Control {
 public:
  explicit Control(const ControlSizes& sizes);

  // Writes the host's block. draft_position_offset as in SpeculativeStepOptions.
  void fill(const speculation::SpecBatch& batch, const StepLayout& layout,
            int draft_position_offset);
  void copy_to_device(const ops::cuda::Stream& stream) const;

  const ControlView& device() const { return device_; }
  const ControlSizes& sizes() const { return sizes_; }

 private:
  void fill_wide(const PlannedWidePass& pass, int64_t index);
  void fill_tables(const speculation::SpecBatch& batch);

  ControlSizes sizes_;
  ops::cuda::PinnedBuffer host_block_;
  ops::cuda::DeviceBuffer device_block_;
  ControlView host_, device_;
  bool has_wide_ = false;  // in the host's block
};

}  // namespace tandem::gpu
