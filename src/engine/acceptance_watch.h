// Notices a drafter that is wired wrongly: the output stays right, so nobody else would.
#pragma once

#include <optional>
#include <string>

namespace tandem::engine {

// The first drafted token is watched: its rate does not depend on K, and with a pair that belongs
// together it is 30 % even on prose.
class AcceptanceWatch {
 public:
  static constexpr int kWindowDrafts = 200;
  static constexpr double kLowRate = 0.05;

  // Counts a round. At the end of a window whose rate is low: what to tell the user, once until a
  // window is good again.
  std::optional<std::string> add_round(int num_drafted, int num_accepted);

 private:
  int num_drafts_ = 0;
  int num_first_accepted_ = 0;
  bool warned_ = false;
};

}  // namespace tandem::engine
