#include "text/token_table.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace tandem::text {
namespace {

constexpr size_t kPrefixBytes = 8;

uint64_t prefix_of(std::string_view text) {
  uint64_t prefix = 0;
  if (!text.empty()) std::memcpy(&prefix, text.data(), std::min(text.size(), kPrefixBytes));
  return prefix;
}

size_t hash_text(std::string_view text) {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
  uint64_t hash = text.size() * kMultiplier;
  for (; text.size() > kPrefixBytes; text.remove_prefix(kPrefixBytes))
    hash = std::rotl(hash ^ prefix_of(text), 29) * kMultiplier;
  hash = (hash ^ prefix_of(text)) * kMultiplier;
  hash ^= hash >> 29;
  return static_cast<size_t>((hash * kMultiplier) >> 32);
}

}  // namespace

void TokenTable::reserve(size_t num_tokens, size_t num_bytes) {
  arena_.reserve(num_bytes);
  spans_.reserve(num_tokens);
  while (slots_.size() < 2 * num_tokens) grow();
}

size_t TokenTable::find_slot(std::string_view text) const {
  const size_t mask = slots_.size() - 1;
  const uint64_t prefix = prefix_of(text);
  for (size_t index = hash_text(text) & mask;; index = (index + 1) & mask) {
    const Slot& slot = slots_[index];
    if (slot.id < 0) return index;
    if (slot.prefix != prefix || slot.length != text.size()) continue;
    if (text.size() <= kPrefixBytes || this->text(slot.id) == text) return index;
  }
}

void TokenTable::grow() {
  std::vector<Slot> old(std::max<size_t>(64, 2 * slots_.size()));
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.id >= 0) slots_[find_slot(text(slot.id))] = slot;
  }
}

TokenTable::AddResult TokenTable::add(int32_t id, std::string_view text) {
  TANDEM_CHECK_GE(id, 0);
  TANDEM_CHECK_LT(id, kMaxTokens);
  TANDEM_CHECK_LT(arena_.size() + text.size(), size_t{kHole});
  if (contains(id)) return AddResult::kDuplicateId;
  if (slots_.size() < 2 * (num_tokens_ + 1)) grow();
  const size_t index = find_slot(text);
  if (slots_[index].id >= 0) return AddResult::kDuplicateText;
  if (id >= size()) spans_.resize(static_cast<size_t>(id) + 1);
  spans_[static_cast<size_t>(id)] = {static_cast<uint32_t>(arena_.size()),
                                     static_cast<uint32_t>(text.size())};
  arena_.append(text);
  slots_[index] = {prefix_of(text), static_cast<uint32_t>(text.size()), id};
  ++num_tokens_;
  return AddResult::kAdded;
}

std::optional<int32_t> TokenTable::find(std::string_view text) const {
  if (slots_.empty()) return std::nullopt;
  const int32_t id = slots_[find_slot(text)].id;
  if (id < 0) return std::nullopt;
  return id;
}

bool TokenTable::contains(int32_t id) const {
  return id >= 0 && id < size() && spans_[static_cast<size_t>(id)].length != kHole;
}

std::string_view TokenTable::text(int32_t id) const {
  if (!contains(id)) return {};
  const Span span = spans_[static_cast<size_t>(id)];
  return std::string_view(arena_).substr(span.offset, span.length);
}

}  // namespace tandem::text
