// The denominator of every figure: how fast this GPU reads memory, measured in the same process.
#pragma once

namespace tandem::bench {

// Bytes per second of a kernel that only reads 4 GiB, the best of several grid sizes.
double measure_read_bandwidth(int num_multiprocessors);

}  // namespace tandem::bench
