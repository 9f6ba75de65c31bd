#include "tests/gpu/emulated/settings.h"

#include <fmt/format.h>

#include <algorithm>

#include "gpu/step_plan.h"
#include "model/kv_store.h"
#include "tests/gpu/emulated/text.h"

namespace tandem::emulated {

engine::EngineOptions Settings::engine_options() const {
  engine::EngineOptions options;
  options.limits = {.max_num_seqs = max_sequences,
                    .max_num_batched_tokens = max_batched_tokens,
                    .max_chunk_tokens = max_chunk_tokens,
                    .block_size = block_size,
                    .num_page_blocks = num_page_blocks};
  options.ring_len = model::ring_len_for(device.window, num_drafts, block_size);
  options.num_ring_blocks = max_sequences * (options.ring_len / block_size);
  options.prefix_caching = prefix_caching;
  options.sliding_window = device.window;
  options.num_snapshot_blocks = prefix_caching ? num_snapshot_blocks : 0;
  options.max_model_len = max_model_len;
  options.vocab_size = kVocab;
  options.num_draft_tokens = num_drafts;
  options.auto_drafts = auto_drafts;
  options.pass_rows = gpu::kPassRows;
  options.priorities = priorities;
  options.eos_token_ids = {kEndOfText};
  options.suppress_tokens = kSuppressed;
  options.watch_acceptance = false;
  return options;
}

gpu::DeviceStepOptions Settings::step_options() const {
  const engine::EngineOptions engine = engine_options();
  gpu::DeviceStepOptions options;
  options.kv = {.block_size = block_size,
                .num_ring_blocks = engine.num_ring_blocks + engine.num_snapshot_blocks,
                .num_page_blocks = num_page_blocks,
                .ring_len = engine.ring_len,
                .dtype = core::DType::kBF16};
  options.max_sequences = max_sequences;
  options.max_step_rows = max_batched_tokens;
  options.max_model_len = max_model_len;
  options.suppress_tokens = kSuppressed;
  options.use_graphs = graphs;
  options.max_shapes = static_cast<size_t>(max_shapes);
  options.whole_rows = whole_rows;
  options.measures_times = auto_drafts;
  options.screens_heads = device.has_screen;
  // What is launched runs when the host asks for it.
  options.patience = std::chrono::milliseconds(0);
  return options;
}

std::string Settings::describe() const {
  return fmt::format(
      "drafts {}{}, sequences {}, batched {}, chunk {}, block {}, pages {}, prefix {}, snapshots "
      "{}, priorities {}, cancels {}, whole rows {}, graphs {}, shapes {}, window {}, wide {}, "
      "screen {}",
      num_drafts, auto_drafts ? " auto" : "", max_sequences, max_batched_tokens, max_chunk_tokens,
      block_size, num_page_blocks, prefix_caching, num_snapshot_blocks, priorities, cancels,
      whole_rows, graphs, max_shapes, device.window, device.runs_wide, device.has_screen);
}

Settings any_settings(Dice& dice) {
  Settings settings;
  settings.num_drafts = static_cast<int>(dice.from(0, 8));
  settings.auto_drafts = dice.one_in(4) && settings.num_drafts > 0;
  settings.max_sequences = dice.one_of({1, 3, 8, 40, 200, 420});
  settings.max_batched_tokens =
      std::max(settings.max_sequences, dice.one_of({16, 100, 512, 2048, 6000}));
  settings.max_chunk_tokens = dice.one_in(3) ? dice.from(1, 300) : settings.max_batched_tokens;
  settings.block_size = dice.one_of({1, 7, 16, 32, 48, 100});
  // Of one sequence, and mostly too few for all: some are preempted.
  const int64_t blocks = settings.max_model_len / settings.block_size + 1;
  settings.num_page_blocks =
      blocks + dice.from(0, blocks * std::min<int64_t>(settings.max_sequences, 12) / 2);
  settings.prefix_caching = !dice.one_in(3);
  settings.num_snapshot_blocks = dice.from(0, 200);
  settings.priorities = dice.one_in(4);
  settings.cancels = dice.one_in(2);
  settings.whole_rows = dice.one_in(5);
  settings.graphs = !dice.one_in(4);
  settings.max_shapes = dice.one_in(3) ? dice.from(2, 6) : 256;
  settings.device = {.window = dice.one_of({1, 2, 16, 65, 128}),
                     .runs_wide = dice.one_in(2),
                     .has_screen = dice.one_in(2),
                     .undecided_share = dice.one_in(3) ? 0.3 : 0.03,
                     .unknown_share = dice.one_in(2) ? 0.2 : 0.01};
  return settings;
}

Settings long_settings(Dice& dice) {
  Settings settings = any_settings(dice);
  settings.max_model_len = 9000;
  settings.max_sequences = dice.from(1, 4);
  settings.max_batched_tokens = dice.one_of({4160, 6000, 8192, 16384});
  settings.max_chunk_tokens = settings.max_batched_tokens;
  settings.block_size = 16;
  settings.num_page_blocks = 5 * settings.max_model_len / settings.block_size;
  settings.device.window = 16;
  return settings;
}

Settings many_settings(Dice& dice) {
  Settings settings = any_settings(dice);
  settings.max_sequences = dice.one_of({200, 420});
  settings.max_batched_tokens = dice.one_of({2048, 6000});
  settings.max_chunk_tokens = settings.max_batched_tokens;
  settings.block_size = 16;
  settings.num_page_blocks = settings.max_sequences * 12;
  settings.whole_rows = false;
  return settings;
}

}  // namespace tandem::emulated
