// How many files this process may have open.
#pragma once

#include <cstdint>

namespace tandem::base {

// Raises the soft limit, which is often 1024, to `wanted`, or to the hard one where that is lower.
// Returns what it is then; a higher one stays.
uint64_t raise_file_limit(uint64_t wanted);

}  // namespace tandem::base
