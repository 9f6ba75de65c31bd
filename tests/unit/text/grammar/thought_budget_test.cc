// Thoughts that must end: alone, under a grammar, and taken back like drafts.
#include "text/grammar/thought_budget.h"

#include <bit>

#include "tests/unit/text/grammar/support.h"

namespace tandem::text {
namespace {

using Constraint = std::shared_ptr<base::TokenConstraint>;

constexpr int32_t kWord = 300;

ThoughtMarks marks() {
  return thought_marks(demo_tokenizer()).value();
}

Constraint limited(int64_t budget, bool open = false, Constraint inner = nullptr) {
  return limit_thoughts(std::move(inner), marks(), budget, open, demo_tokenizer().vocab_size());
}

// How many ids a mask allows; -1: all.
int64_t count(std::span<const uint32_t> mask) {
  if (mask.empty()) return -1;
  int64_t result = 0;
  for (const uint32_t word : mask) result += std::popcount(word);
  return result;
}

bool only_end(const Constraint& constraint) {
  const auto mask = constraint->allowed();
  return count(mask) == 1 && allows(mask, marks().end);
}

TEST(ThoughtBudget, EndsAThoughtAndNothingElse) {
  const Constraint constraint = limited(2);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(count(constraint->allowed()), -1);
    EXPECT_TRUE(constraint->accept(kWord));
  }
  EXPECT_TRUE(constraint->accept(marks().begin));
  EXPECT_TRUE(constraint->accept(kWord));
  EXPECT_EQ(count(constraint->allowed()), -1);
  EXPECT_TRUE(constraint->accept(kWord));
  EXPECT_TRUE(only_end(constraint));
  EXPECT_FALSE(constraint->accept(kWord));
  EXPECT_TRUE(constraint->accept(marks().end));
  EXPECT_EQ(count(constraint->allowed()), -1);
  EXPECT_TRUE(constraint->accept(kWord));
  // Another thought has nothing left.
  EXPECT_TRUE(constraint->accept(marks().begin));
  EXPECT_TRUE(only_end(constraint));
  EXPECT_FALSE(constraint->finished());
}

TEST(ThoughtBudget, ThePromptMayHaveBegunOne) {
  EXPECT_TRUE(only_end(limited(0, true)));
  EXPECT_EQ(count(limited(1, true)->allowed()), -1);
  EXPECT_EQ(count(limited(0, false)->allowed()), -1);
}

TEST(ThoughtBudget, DraftsAreTakenBack) {
  const Constraint constraint = limited(2, true);
  EXPECT_TRUE(constraint->accept(kWord));
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(constraint->accept(kWord));
    EXPECT_TRUE(only_end(constraint));
    EXPECT_TRUE(constraint->accept(marks().end));
    EXPECT_TRUE(constraint->accept(kWord));
    constraint->rollback(3);
    EXPECT_EQ(count(constraint->allowed()), -1);
  }
}

TEST(ThoughtBudget, AGrammarStaysAsItIs) {
  const auto content = choice_grammar({"yes", "no"}, "test");
  ASSERT_TRUE(content.has_value());
  const GrammarRef grammar =
      compile(after_thought(*content, Thought::kMay, demo_tokenizer(), demo_end_ids()));
  ASSERT_NE(grammar, nullptr);
  const Constraint constraint = limited(6, false, grammar->start());
  EXPECT_TRUE(constraint->accept(marks().begin));
  const auto thought = demo_tokenizer().encode("thought\na b c d e f g", SpecialTokens::kDisabled);
  ASSERT_GT(thought.size(), 6U);
  for (size_t i = 0; i < 6; ++i) {
    ASSERT_TRUE(allows(constraint->allowed(), thought[i])) << i;
    ASSERT_TRUE(constraint->accept(thought[i])) << i;
  }
  EXPECT_TRUE(only_end(constraint));
  EXPECT_TRUE(constraint->accept(marks().end));
  EXPECT_FALSE(allows(constraint->allowed(), marks().end));
  for (const int32_t id : demo_tokenizer().encode("yes", SpecialTokens::kDisabled)) {
    EXPECT_TRUE(allows(constraint->allowed(), id));
    EXPECT_TRUE(constraint->accept(id));
  }
  EXPECT_TRUE(constraint->accept(demo_end_ids()[1]));
  EXPECT_TRUE(constraint->finished());
}

}  // namespace
}  // namespace tandem::text
