// Ctrl-C (and SIGTERM): a flag that long work looks at between steps.
#pragma once

#include "base/status.h"

namespace tandem::cli {

// While it lives, the first signal sets the flag and a second one before the flag is cleared ends
// the program at once with status 130. Blocking reads return with EINTR. One at a time.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  static bool interrupted();
  static bool terminated();  // by SIGTERM, which clear() does not forget
  static void clear();
};

}  // namespace tandem::cli
