// What the host left in page-locked memory, brought to the device by a kernel: as the first node of
// a graph it starts sooner than a copy does.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/device.h"

namespace tandem::ops::cuda {

// Waits for everything before it, and the stream's next kernel waits for it before it starts: what
// is fetched may be read without wait_for_previous() from then on. `bytes` is a multiple of 16, and
// so are the addresses. *fetched, unless null, is the device's clock (record_time) when the first
// bytes were there; it may be page-locked too.
void fetch(const Stream& stream, const void* host, void* device, size_t bytes, uint64_t* fetched);

}  // namespace tandem::ops::cuda
