// Target and Assistant: they check what a pass is told (places, rings, tiles, states) and leave
// hashes of texts where their likes leave hidden states.
#include "gpu/models.h"

#include <vector>

#include "gpu/prefill.h"
#include "ops/argmax.h"
#include "tests/gpu/emulated/device.h"
#include "tests/gpu/emulated/heads.h"
#include "tests/gpu/emulated/places.h"
#include "tests/gpu/emulated/text.h"

namespace tandem::ops::cuda {

// No keys are widened here.
bool takes_widened_keys(int, int, int) {
  return false;
}

}  // namespace tandem::ops::cuda

namespace tandem::gpu {
namespace {

using emulated::device;
using emulated::expect_equal;
using emulated::fault;
using emulated::kVocab;
using emulated::submit;
using emulated::Word;
using ops::cuda::Stream;

// A row's text; of rows that follow each other, one token more.
class RowHashes {
 public:
  explicit RowHashes(const emulated::Places& places) : places_(places) {}

  uint64_t of(int sequence, int64_t position, int32_t token) {
    if (sequence == sequence_ && position == position_ + 1)
      hash_ = emulated::extend(hash_, token);
    else
      hash_ = places_.hash_up_to(sequence, position);
    sequence_ = sequence;
    position_ = position;
    return hash_;
  }

 private:
  const emulated::Places& places_;
  int sequence_ = -1;
  int64_t position_ = -2;
  uint64_t hash_ = 0;
};

// Every real row is in one tile, with rows of its sequence alone; padding has no sequence.
void check_tiles(const Pass& pass) {
  std::vector<int> tiles_of_row(static_cast<size_t>(pass.real_rows));
  for (int tile = 0; tile < pass.tiles.num_tiles; ++tile)
    for (int r = 0; r < pass.tiles.num_rows[tile]; ++r) {
      const int first = pass.tiles.first_rows[tile];
      if (first + r >= pass.real_rows) {
        fault("rows of a pass that a tile ends with, at most", pass.real_rows, first + r + 1);
        continue;
      }
      ++tiles_of_row[static_cast<size_t>(first + r)];
      expect_equal("the sequence of a tile's row", pass.rows.sequences[first],
                   pass.rows.sequences[first + r]);
    }
  for (const int count : tiles_of_row) expect_equal("tiles of a row", 1, count);
  for (int r = pass.real_rows; r < pass.rows.num_rows; ++r)
    expect_equal("the sequence of padding", -1, pass.rows.sequences[r]);
}

void write_rows(const Pass& pass, const emulated::Places& places) {
  for (int r = 0; r < pass.real_rows; ++r) {
    const int32_t position = pass.rows.positions[r];
    const int32_t token = pass.rows.tokens[r];
    if (position >= pass.max_keys) fault("keys of a row, at most", pass.max_keys, position + 1);
    if (token < 0 || token >= kVocab) fault("a token below", kVocab, token);
    places.write_ring(pass.rows.sequences[r], position, token);
    places.write_pages(pass.rows.sequences[r], position, token);
  }
}

// All keys of a pass are written before any is read.
void run_pass(const Pass& pass, const KvCache& kv, uint16_t* hidden, Word* operand) {
  const emulated::Places places{&kv, pass.ring, pass.pages};
  ++device().counts.passes;
  check_tiles(pass);
  write_rows(pass, places);
  RowHashes hashes(places);
  for (int r = 0; r < pass.rows.num_rows; ++r) {
    Word word;
    if (r < pass.real_rows) {
      const int sequence = pass.rows.sequences[r];
      const int32_t position = pass.rows.positions[r];
      places.check_ring(sequence, position, position + 1);
      word = {hashes.of(sequence, position, pass.rows.tokens[r]), static_cast<uint64_t>(position)};
    }
    emulated::set_word(word, hidden, r);
    operand[r] = word;
  }
}

// Where the chunk of each row's sequence begins and ends.
struct Chunk {
  int32_t begin = -1, end = -1;
};
std::vector<Chunk> check_wide_tiles(const WidePass& pass) {
  const ops::cuda::WideTiles& tiles = pass.tiles;
  std::vector<Chunk> chunks(static_cast<size_t>(pass.rows.num_rows));
  for (int tile = 0; tile < tiles.num_tiles; ++tile) {
    const int first = tiles.first_rows[tile];
    if (tiles.num_rows[tile] < 1 || tiles.num_rows[tile] > ops::cuda::kWideTileRows)
      fault("rows of a wide tile, 1 to", ops::cuda::kWideTileRows, tiles.num_rows[tile]);
    for (int r = 0; r < tiles.num_rows[tile]; ++r) {
      if (first + r >= pass.rows.num_rows) {
        fault("rows that a wide tile ends with, at most", pass.rows.num_rows, first + r + 1);
        continue;
      }
      Chunk& chunk = chunks[static_cast<size_t>(first + r)];
      expect_equal("wide tiles of a row before this one", -1, chunk.begin);
      chunk = {tiles.chunk_begins[tile], tiles.chunk_ends[tile]};
      expect_equal("the sequence of a wide tile's row", pass.rows.sequences[first],
                   pass.rows.sequences[first + r]);
      expect_equal("the position of a wide tile's row", pass.rows.positions[first] + r,
                   pass.rows.positions[first + r]);
    }
  }
  for (const Chunk& chunk : chunks)
    if (chunk.begin < 0) fault("wide tiles of a row", 1, 0);
  return chunks;
}

// Keys of the chunk itself come from the pass; the ring gets the newest when all have been read.
void run_wide_pass(const WidePass& pass, const KvCache& kv, Word* hidden, int capacity) {
  const emulated::Places places{&kv, pass.ring, pass.pages};
  const ops::cuda::Rows& rows = pass.rows;
  ++device().counts.wide_passes;
  if (rows.num_rows > capacity) fault("rows of a wide pass, at most", capacity, rows.num_rows);
  const std::vector<Chunk> chunks = check_wide_tiles(pass);
  for (int r = 0; r < rows.num_rows; ++r)
    places.write_pages(rows.sequences[r], rows.positions[r], rows.tokens[r]);
  RowHashes hashes(places);
  for (int r = 0; r < rows.num_rows; ++r) {
    places.check_ring(rows.sequences[r], rows.positions[r], chunks[static_cast<size_t>(r)].begin);
    hidden[r] = {hashes.of(rows.sequences[r], rows.positions[r], rows.tokens[r]),
                 static_cast<uint64_t>(rows.positions[r])};
  }
  for (int r = 0; r < rows.num_rows; ++r)
    if (rows.positions[r] >= chunks[static_cast<size_t>(r)].end - pass.ring.ring_len)
      places.write_ring(rows.sequences[r], rows.positions[r], rows.tokens[r]);
}

}  // namespace

// Nothing is uploaded.
WeightUploader::WeightUploader(int num_multiprocessors)
    : num_multiprocessors_(num_multiprocessors) {}
WeightUploader::~WeightUploader() = default;

base::Result<Target> Target::load(WeightUploader&, const io::Checkpoint&, bool) {
  Target target;
  target.config_.hidden_size = emulated::kHidden;
  target.config_.vocab_size = kVocab;
  target.config_.sliding_window = device().settings.window;
  target.config_.num_attention_heads = 1;
  target.config_.intermediate_size = 32;
  io::LayerConfig sliding;
  sliding.num_key_value_heads = 1;
  sliding.head_dim = sizeof(uint64_t) / sizeof(uint16_t);  // a place of places.h
  io::LayerConfig full = sliding;
  full.type = io::LayerType::kFull;
  target.config_.layers = {sliding, full};
  return target;
}

WorkspaceSizes Target::workspace_sizes(int64_t) const {
  return {.hidden = emulated::kHidden,
          .q_dim = 8,
          .operand_width = emulated::kHidden,
          .partial_bytes = 64,
          .attention_bytes = 64,
          .inner_width = 8,
          .exchange_bytes = 64};
}

void Target::list_attention(const Stream&, const Pass&, const KvCache&, Workspace&) const {}

void Target::forward(const Stream& stream, const Pass& pass, const KvCache& kv, uint16_t* hidden,
                     Workspace& workspace) const {
  auto* const operand = workspace.operand.as<Word>();
  submit(stream, [pass, &kv, hidden, operand] { run_pass(pass, kv, hidden, operand); });
}

bool Target::runs_wide() const {
  return device().settings.runs_wide;
}

void Target::forward_wide(const Stream& stream, const WidePass& pass, const KvCache& kv,
                          const WideWorkspace& workspace) const {
  auto* const hidden = workspace.hidden.as<Word>();
  if (emulated::is_capturing(stream)) fault("wide passes in a graph", 0, 1);
  submit(stream, [pass, &kv, hidden, capacity = workspace.capacity] {
    run_wide_pass(pass, kv, hidden, capacity);
  });
}

void Target::choose(const Stream& stream, int num_rows, ops::cuda::HeadArgmax argmax,
                    Workspace& workspace) const {
  const auto* const words = workspace.operand.as<Word>();
  if (argmax.logits.num_rows > num_rows)
    fault("rows to choose for, at most", num_rows, argmax.logits.num_rows);
  submit(stream, [argmax, words] {
    for (int r = 0; r < argmax.logits.num_rows; ++r)
      argmax.tokens[r] = emulated::greedy_token(emulated::logits_of(words[r].hash),
                                                emulated::suppressed_ids(argmax.logits));
  });
}

bool Target::find_likeliest(const Stream& stream, int num_rows, ops::cuda::HeadLikeliest job,
                            Workspace& workspace) const {
  if (!device().settings.has_screen || num_rows > 8 * ops::cuda::kMaxScreenedTiles) return false;
  const auto* const words = workspace.operand.as<Word>();
  submit(stream, [job, words] {
    for (int r = 0; r < job.logits.num_rows; ++r) {
      emulated::find_likeliest(emulated::logits_of(words[r].hash), job.num_likeliest, job.out[r]);
      if (device().happens(device().settings.unknown_share)) job.out[r].status = -1;
    }
  });
  return true;
}

size_t Target::likeliest_bytes() const {
  return device().settings.has_screen ? 64 : 0;
}

ops::cuda::Partials Target::head(const Stream&, int, Workspace& workspace) const {
  ops::cuda::Partials sums;
  sums.data = workspace.operand.as<float>();
  return sums;
}

}  // namespace tandem::gpu
