#include "ops/cpu/isa.h"

#include <cstdlib>
#include <string_view>

#include "base/check.h"
#include "base/log.h"
#include "ops/cpu/kernels.h"

namespace tandem::ops::cpu {
namespace {

Isa from_environment() {
  const Isa best = best_isa();
  const char* value = std::getenv("TANDEM_CPU_ISA");
  const std::string_view name = value == nullptr ? "" : value;
  if (name.empty()) return best;
  if (name == "reference") return Isa::kReference;
  if (name == "avx2" && best >= Isa::kAvx2) return Isa::kAvx2;
  if (name == "avx512" && best >= Isa::kAvx512) return Isa::kAvx512;
  base::log_warning("TANDEM_CPU_ISA: expected reference, avx2 or avx512 that this CPU has, got {}",
                    name);
  return best;
}

Isa& current() {
  static Isa isa = from_environment();
  return isa;
}

}  // namespace

// __builtin_cpu_supports asks CPUID and whether the system saves the wide registers.
Isa best_isa() {
  const bool avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
                    __builtin_cpu_supports("f16c") != 0;
  const bool avx512 =
      __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
      __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
  if (!avx2) return Isa::kReference;
  return avx512 ? Isa::kAvx512 : Isa::kAvx2;
}

Isa isa() {
  return current();
}

const Kernels& kernels() {
  const Isa which = isa();
  TANDEM_CHECK(which != Isa::kReference);
  return which == Isa::kAvx512 ? avx512::kKernels : avx2::kKernels;
}

ScopedIsa::ScopedIsa(Isa forced) : before_(current()) {
  TANDEM_CHECK(forced <= best_isa());
  current() = forced;
}

ScopedIsa::~ScopedIsa() {
  current() = before_;
}

}  // namespace tandem::ops::cpu
