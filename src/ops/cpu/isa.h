// Which instruction set the CPU kernels use.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "ops/context.h"

namespace tandem::ops::cpu {

// Bits of results: kAvx2 and kAvx512 agree with each other; kAmx and kAmxEmulated too. Between the
// two pairs projections differ in their last bits, because a sum has another order.
enum class Isa {
  kReference,    // no vector kernels: the ops run their reference
  kAvx2,         // AVX2, FMA and F16C
  kAvx512,       // AVX-512 F, BW, DQ and VL as well
  kAmx,          // AMX-BF16 as well: linear on matrix tiles
  kAmxEmulated,  // AVX-512 does what AMX would: slow, for tests
};

const char* isa_name(Isa isa);

// Whether this CPU and its operating system offer it.
bool has_isa(Isa isa);

// The fastest one that they offer.
Isa best_isa();

// "auto", or a name that this CPU has.
base::Result<Isa> parse_isa(std::string_view name);

// What the kernels use: best_isa(), or what set_isa or the environment variable TANDEM_CPU_ISA (a
// name as above; read once, at first use) asks for.
Isa isa();
// Before any op runs.
void set_isa(Isa isa);

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
