// What the engine refuses, and what must hold between steps.
#include <fmt/format.h>

#include <algorithm>

#include "engine/engine.h"

namespace tandem::engine {
namespace {

using base::ErrorCode;
using base::invalid;
using base::Status;

std::string sequence_fault(const Sequence& sequence, const EngineOptions& options, bool running) {
  const int64_t block_size = options.limits.block_size;
  const auto pages = static_cast<int64_t>(sequence.page_blocks.size());
  const auto rings = static_cast<int64_t>(sequence.ring_blocks.size());
  const auto fault = [&](const char* what) {
    return fmt::format("request {}: {} (tokens {}, computed {}, pages {}, ring blocks {})",
                       sequence.id, what, sequence.num_tokens(), sequence.num_computed, pages,
                       rings);
  };
  if (!running) {
    const bool empty = pages == 0 && rings == 0 && sequence.state_slot.empty() &&
                       sequence.num_computed == 0 && !sequence.has_state &&
                       sequence.prefix_tail == nullptr;
    return empty ? std::string() : fault("waits but holds something");
  }
  if (rings != options.ring_len / block_size) return fault("has no whole ring");
  if (sequence.state_slot.size() != 1) return fault("has no state row");
  if (sequence.num_computed >= sequence.num_tokens()) return fault("has nothing left to compute");
  if (sequence.has_state && sequence.num_computed != sequence.num_tokens() - 1)
    return fault("its state is not that of its last computed token");
  if (pages * block_size < sequence.num_computed) return fault("has too few pages");
  const int64_t full_pages = sequence.num_computed / block_size;
  if (sequence.num_shared_pages() != (options.prefix_caching ? full_pages : 0))
    return fault("does not share its full pages");
  if (sequence.num_output_tokens() >= sequence.stop.max_tokens) return fault("is past max_tokens");
  return {};
}

}  // namespace

Status Engine::validate(const EngineOptions& options) {
  const SchedulerLimits& limits = options.limits;
  if (limits.max_num_seqs < 1)
    return invalid("max_num_seqs: expected a number >= 1, got {}", limits.max_num_seqs);
  if (limits.max_num_batched_tokens < limits.max_num_seqs)
    return invalid(
        "max_num_batched_tokens: expected at least max_num_seqs ({}), got {}; every running "
        "request has one row in a step",
        limits.max_num_seqs, limits.max_num_batched_tokens);
  if (limits.max_chunk_tokens < 1)
    return invalid("max_chunk_tokens: expected a number >= 1, got {}", limits.max_chunk_tokens);
  if (options.num_draft_tokens < 0 || options.num_draft_tokens > speculation::kMaxDraftTokens)
    return invalid("num_speculative_tokens: expected 0 to {}, got {}", speculation::kMaxDraftTokens,
                   options.num_draft_tokens);
  if (options.max_model_len < 2)
    return invalid("max_model_len: expected a number >= 2, got {}", options.max_model_len);
  if (limits.block_size < 1 || options.ring_len < limits.block_size ||
      options.ring_len % limits.block_size != 0)
    return invalid("ring_len: expected a multiple of block_size ({}), got {}", limits.block_size,
                   options.ring_len);
  if (options.prefix_caching &&
      (options.sliding_window < 1 || options.sliding_window > options.ring_len))
    return invalid("sliding_window: expected 1 to ring_len ({}), got {}", options.ring_len,
                   options.sliding_window);
  if (options.num_ring_blocks < options.ring_len / limits.block_size || limits.num_page_blocks < 1)
    return invalid(
        "KV cache: expected room for one sequence ({} ring blocks and a page), got {} ring blocks "
        "and {} pages; give it more memory or lower max_model_len",
        options.ring_len / limits.block_size, options.num_ring_blocks, limits.num_page_blocks);
  return {};
}

int64_t Engine::max_request_tokens() const {
  // The last output token never gets a place in the cache.
  const int64_t places = options_.limits.num_page_blocks * options_.limits.block_size;
  return std::min(options_.max_model_len, places + 1);
}

Status Engine::check_request(const EngineRequest& request) const {
  TANDEM_RETURN_IF_ERROR(sampling::validate(request.sampling, options_.vocab_size));
  const auto num_prompt_tokens = static_cast<int64_t>(request.prompt_ids.size());
  if (num_prompt_tokens == 0) return invalid("prompt: expected at least one token, got none");
  for (const int32_t id : request.prompt_ids)
    if (id < 0 || id >= options_.vocab_size)
      return invalid("prompt: expected token ids from 0 to {}, got {}", options_.vocab_size - 1,
                     id);
  if (request.max_tokens < 1)
    return invalid("max_tokens: expected a number >= 1, got {}", request.max_tokens);
  if (request.sampling.min_tokens > request.max_tokens)
    return invalid("min_tokens: expected at most max_tokens ({}), got {}", request.max_tokens,
                   request.sampling.min_tokens);
  // Subtracting cannot overflow, whatever max_tokens is.
  if (num_prompt_tokens >= options_.max_model_len ||
      request.max_tokens > options_.max_model_len - num_prompt_tokens)
    return invalid(
        "prompt and max_tokens: expected at most {} tokens together (max_model_len), got {} + {}",
        options_.max_model_len, num_prompt_tokens, request.max_tokens);
  if (num_prompt_tokens + request.max_tokens > max_request_tokens())
    return invalid(
        "prompt and max_tokens: expected at most {} tokens together (all the KV cache holds), got "
        "{} + {}; give the cache more memory or lower max_tokens",
        max_request_tokens(), num_prompt_tokens, request.max_tokens);
  if (request.priority != 0 && !options_.priorities)
    return invalid(
        "priority: expected 0 with --scheduling-policy fcfs, got {}; with the policy priority "
        "others count",
        request.priority);
  const int drafts = request.num_draft_tokens.value_or(0);
  if (drafts < 0 || drafts > options_.num_draft_tokens)
    return invalid("num_speculative_tokens: expected 0 to {}, got {}", options_.num_draft_tokens,
                   drafts);
  if (sequences_.contains(request.id))
    return invalid("request id {}: expected one that is not in use", request.id);
  if (options_.max_num_queued > 0 &&
      static_cast<int64_t>(waiting_.size()) >= options_.max_num_queued)
    return base::make_error(
        ErrorCode::kResourceExhausted,
        fmt::format("queue: expected fewer than {} waiting requests, got {}; try again later",
                    options_.max_num_queued, waiting_.size()));
  return {};
}

std::string Engine::find_fault() const {
  if (sequences_.size() != running_.size() + waiting_.size())
    return fmt::format("{} requests, but {} run and {} wait", sequences_.size(), running_.size(),
                       waiting_.size());
  if (static_cast<int64_t>(running_.size()) > options_.limits.max_num_seqs)
    return fmt::format("{} requests run, at most {} may", running_.size(),
                       options_.limits.max_num_seqs);
  std::vector<const std::vector<int32_t>*> rings, pages, slots;
  std::deque<std::vector<int32_t>> own_pages;
  std::vector<PrefixNode*> tails;
  const Sequence* before = nullptr;
  const auto visit = [&](const Sequence& sequence, bool running) {
    if (before != nullptr && !before->ranks_before(sequence))
      return fmt::format("request {} is served after {}, which ranks behind it", sequence.id,
                         before->id);
    before = &sequence;
    rings.push_back(&sequence.ring_blocks);
    const auto& blocks = sequence.page_blocks;
    own_pages.emplace_back(blocks.begin() + sequence.num_shared_pages(), blocks.end());
    pages.push_back(&own_pages.back());
    tails.push_back(sequence.prefix_tail);
    for (const PrefixNode* node = sequence.prefix_tail; node != nullptr; node = node->parent)
      if (blocks[static_cast<size_t>(node->depth - 1)] != node->page)
        return fmt::format("request {}: page {} is not the cache's", sequence.id, node->depth - 1);
    slots.push_back(&sequence.state_slot);
    return sequence_fault(sequence, options_, running);
  };
  for (const Sequence* waits : waiting_)
    for (const Sequence* runs : running_)
      if (waits->priority == runs->priority && waits->ranks_before(*runs))
        return fmt::format("request {} waits, {} of its priority overtook it", waits->id, runs->id);
  for (const Sequence* sequence : running_)
    if (std::string fault = visit(*sequence, true); !fault.empty()) return fault;
  before = nullptr;
  for (const Sequence* sequence : waiting_)
    if (std::string fault = visit(*sequence, false); !fault.empty()) return fault;
  own_pages.push_back(prefixes_.owned_pages());
  pages.push_back(&own_pages.back());
  if (std::string fault = prefixes_.find_fault(tails); !fault.empty()) return "prefixes: " + fault;
  if (std::string fault = rings_.find_fault(rings); !fault.empty()) return "rings: " + fault;
  if (std::string fault = pages_.find_fault(pages); !fault.empty()) return "pages: " + fault;
  if (std::string fault = state_slots_.find_fault(slots); !fault.empty())
    return "state rows: " + fault;
  return {};
}

}  // namespace tandem::engine
