// What time it is on the device, between kernels.
#pragma once

#include <cstdint>

#include "ops/cuda/device.h"

namespace tandem::ops::cuda {

// *out = nanoseconds of the device's clock (PTX %globaltimer) once every earlier kernel of the
// stream has finished. `out` may be page-locked host memory. It costs a link in the chain of
// kernels, about a microsecond.
void record_time(const Stream& stream, uint64_t* out);

}  // namespace tandem::ops::cuda
