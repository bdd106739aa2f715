#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels/products/bf16_words.h"

namespace plumb::kernels {
namespace {

#if defined(__x86_64__)
Bf16Words Choose() {
#if defined(__AVX512F__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(0, &a, &b, &c, &d)) return Bf16Words::kNone;
  const unsigned vendor = b;
  constexpr unsigned kAmxBf16 = 1u << 22;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kAmxBf16) != 0) return Bf16Words::kNone;
  if (vendor == signature_INTEL_ebx) return Bf16Words::kFloats;
#ifdef __AVX512BF16__
  if (vendor == signature_AMD_ebx) return Bf16Words::kPairs;
#endif
  return Bf16Words::kNone;
#elif defined(__AVX2__)
  // A build for such a processor may run on a newer one.
  return __builtin_cpu_supports("avx512f") ? Bf16Words::kNone : Bf16Words::kFloats;
#else
  return Bf16Words::kNone;
#endif
}
#endif

}  // namespace

Bf16Words OwnBf16Words() {
#if defined(__x86_64__)
  static const Bf16Words chosen = Choose();
  return chosen;
#else
  return Bf16Words::kNone;
#endif
}

}  // namespace plumb::kernels
