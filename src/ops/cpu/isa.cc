#include "ops/cpu/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "base/check.h"
#include "base/log.h"
#include "ops/cpu/kernels.h"

namespace tandem::ops::cpu {
namespace {

constexpr std::array kAll = {Isa::kReference, Isa::kAvx2, Isa::kAvx512, Isa::kAmx,
                             Isa::kAmxEmulated};

// __builtin_cpu_supports asks CPUID and whether the system saves the wide registers.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
         __builtin_cpu_supports("f16c") != 0;
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") != 0 &&
         __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
         __builtin_cpu_supports("avx512vl") != 0;
}

// The tiles' state is large: Linux saves it only for processes that have asked.
bool ask_for_amx() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  constexpr unsigned kAmxBf16AndTile = (1U << 22) | (1U << 24);
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kAmxBf16AndTile) != kAmxBf16AndTile) return false;
  constexpr long kRequestStatePermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestStatePermission, kTileData) == 0;
}

bool has_amx() {
  static const bool has = has_avx512() && __builtin_cpu_supports("avx512vbmi") != 0 &&
                          __builtin_cpu_supports("gfni") != 0 && ask_for_amx();
  return has;
}

std::string names_here() {
  std::string names = "auto";
  for (const Isa isa : kAll)
    if (has_isa(isa)) names = names + ", " + isa_name(isa);
  return names;
}

Isa from_environment() {
  const char* value = std::getenv("TANDEM_CPU_ISA");
  const std::string_view name = value == nullptr ? "" : value;
  if (name.empty()) return best_isa();
  const base::Result<Isa> parsed = parse_isa(name);
  if (parsed) return *parsed;
  base::log_warning("TANDEM_CPU_ISA: {}", parsed.error().message);
  return best_isa();
}

Isa& current() {
  static Isa isa = from_environment();
  return isa;
}

Kernels with_tiles(Kernels table, decltype(Kernels::linear_tiles) linear_tiles) {
  table.linear_tiles = linear_tiles;
  return table;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return "reference";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAmx:
      return "amx";
    case Isa::kAmxEmulated:
      return "amx-emulated";
  }
  return "";
}

bool has_isa(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return true;
    case Isa::kAvx2:
      return has_avx2();
    case Isa::kAvx512:
    case Isa::kAmxEmulated:
      return has_avx512();
    case Isa::kAmx:
      return has_amx();
  }
  return false;
}

Isa best_isa() {
  if (has_amx()) return Isa::kAmx;
  if (has_avx512()) return Isa::kAvx512;
  return has_avx2() ? Isa::kAvx2 : Isa::kReference;
}

base::Result<Isa> parse_isa(std::string_view name) {
  if (name == "auto") return best_isa();
  for (const Isa isa : kAll)
    if (name == isa_name(isa) && has_isa(isa)) return isa;
  return base::invalid("expected what this CPU has ({}), got {}", names_here(), name);
}

Isa isa() {
  return current();
}

void set_isa(Isa isa) {
  TANDEM_CHECK(has_isa(isa));
  current() = isa;
}

const Kernels& kernels() {
  static const Kernels amx = with_tiles(avx512::kKernels, avx512::linear_amx);
  static const Kernels emulated = with_tiles(avx512::kKernels, avx512::linear_emulated);
  switch (isa()) {
    case Isa::kAvx2:
      return avx2::kKernels;
    case Isa::kAvx512:
      return avx512::kKernels;
    case Isa::kAmx:
      return amx;
    case Isa::kAmxEmulated:
      return emulated;
    case Isa::kReference:
      break;
  }
  base::check_failed(__FILE__, __LINE__, "isa() has kernels", isa_name(isa()));
}

ScopedIsa::ScopedIsa(Isa forced) : before_(current()) {
  set_isa(forced);
}

ScopedIsa::~ScopedIsa() {
  current() = before_;
}

}  // namespace tandem::ops::cpu
