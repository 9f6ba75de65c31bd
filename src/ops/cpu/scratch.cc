#include "ops/cpu/scratch.h"

#include <algorithm>
#include <array>

#include "core/buffer.h"

namespace tandem::ops::cpu {

float* scratch(ScratchUse use, int64_t count) {
  thread_local std::array<core::Buffer, 5> areas;
  core::Buffer& area = areas[static_cast<size_t>(use)];
  const auto bytes = static_cast<size_t>(count) * sizeof(float);
  if (area.empty() || area.size_bytes() < bytes) {
    // Grows by half at least, so that a slowly growing context does not allocate at every step.
    const auto before = static_cast<int64_t>(area.size_bytes() / sizeof(float));
    area = core::Buffer();
    area = core::Buffer(core::DType::kF32, core::Shape{std::max(count, before + before / 2)});
  }
  return static_cast<float*>(area.data());
}

}  // namespace tandem::ops::cpu
