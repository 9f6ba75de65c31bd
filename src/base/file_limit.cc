#include "base/file_limit.h"

#include <sys/resource.h>

#include <algorithm>

namespace tandem::base {

uint64_t raise_file_limit(uint64_t wanted) {
  rlimit limit{};
  // Nothing is known of it: nobody should be warned.
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  if (limit.rlim_cur >= wanted) return limit.rlim_cur;
  const rlimit raised{std::min<rlim_t>(wanted, limit.rlim_max), limit.rlim_max};
  return ::setrlimit(RLIMIT_NOFILE, &raised) == 0 ? raised.rlim_cur : limit.rlim_cur;
}

}  // namespace tandem::base
