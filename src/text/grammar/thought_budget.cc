#include "text/grammar/thought_budget.h"

#include <utility>
#include <vector>

#include "base/check.h"

namespace tandem::text {
namespace {

class ThoughtBudget : public base::TokenConstraint {
 public:
  ThoughtBudget(std::shared_ptr<base::TokenConstraint> inner, const ThoughtMarks& marks,
                int64_t budget, bool open, int64_t vocab_size)
      : inner_(std::move(inner)),
        marks_(marks),
        budget_(budget),
        places_{{0, open}},
        only_end_(static_cast<size_t>((vocab_size + 31) / 32), 0U) {
    only_end_[static_cast<size_t>(marks.end) / 32] |= 1U << (static_cast<uint32_t>(marks.end) % 32);
  }

  std::span<const uint32_t> allowed() override {
    const std::span<const uint32_t> mask = inner_ ? inner_->allowed() : std::span<const uint32_t>();
    return must_end() && (mask.empty() || holds_end(mask)) ? only_end_ : mask;
  }

  bool accept(int32_t token) override {
    if (must_end() && token != marks_.end) {
      // As in allowed(): a grammar that forbids the end here goes first.
      const bool may_end = !inner_ || inner_->allowed().empty() || holds_end(inner_->allowed());
      if (may_end) return false;
    }
    if (inner_ && !inner_->accept(token)) return false;
    Place place = places_.back();
    if (token == marks_.begin)
      place.inside = true;
    else if (token == marks_.end)
      place.inside = false;
    else if (place.inside)
      ++place.num_thought;
    places_.push_back(place);
    return true;
  }

  void rollback(int count) override {
    TANDEM_CHECK_LT(static_cast<size_t>(count), places_.size());
    places_.resize(places_.size() - static_cast<size_t>(count));
    if (inner_) inner_->rollback(count);
  }

  bool finished() const override { return inner_ && inner_->finished(); }

 private:
  struct Place {
    int64_t num_thought = 0;  // tokens inside thoughts so far
    bool inside = false;
  };

  bool must_end() const { return places_.back().inside && places_.back().num_thought >= budget_; }
  bool holds_end(std::span<const uint32_t> mask) const {
    const auto id = static_cast<size_t>(marks_.end);
    return id / 32 < mask.size() && ((mask[id / 32] >> (id % 32)) & 1U) != 0;
  }

  std::shared_ptr<base::TokenConstraint> inner_;
  ThoughtMarks marks_;
  int64_t budget_;
  std::vector<Place> places_;  // behind the prompt, and behind every accepted token
  std::vector<uint32_t> only_end_;
};

}  // namespace

std::optional<ThoughtMarks> thought_marks(const Tokenizer& tokenizer) {
  const auto begin = tokenizer.token_to_id("<|channel>");
  const auto end = tokenizer.token_to_id("<channel|>");
  if (!begin || !end) return std::nullopt;
  return ThoughtMarks{*begin, *end};
}

std::shared_ptr<base::TokenConstraint> limit_thoughts(std::shared_ptr<base::TokenConstraint> inner,
                                                      const ThoughtMarks& marks, int64_t budget,
                                                      bool open, int64_t vocab_size) {
  return std::make_shared<ThoughtBudget>(std::move(inner), marks, budget, open, vocab_size);
}

}  // namespace tandem::text
