// Which instruction set the CPU kernels use.
#pragma once

#include "ops/context.h"

namespace tandem::ops::cpu {

enum class Isa {
  kReference,  // no vector kernels: the ops run their reference
  kAvx2,       // AVX2, FMA and F16C
  kAvx512,     // AVX-512 F, BW, DQ and VL as well
};

// What this CPU and its operating system offer.
Isa best_isa();

// What the kernels use: best_isa(), or what the environment variable TANDEM_CPU_ISA (reference,
// avx2, avx512) asks for if the CPU has it. Read once, at first use.
Isa isa();

// For tests and benchmarks: changes what isa() returns while it lives. Not while ops run.
class ScopedIsa {
 public:
  explicit ScopedIsa(Isa forced);
  ~ScopedIsa();
  ScopedIsa(const ScopedIsa&) = delete;
  ScopedIsa& operator=(const ScopedIsa&) = delete;

 private:
  Isa before_;
};

// True if the op has to run its reference.
inline bool use_reference(const Context& context) {
  return context.backend == Backend::kReference || isa() == Isa::kReference;
}

}  // namespace tandem::ops::cpu
