// What the processor can do, asked when the module is loaded. Nothing here uses the instructions that it asks for.
#pragma once

#if defined(_WIN32)
#include <immintrin.h>
#include <intrin.h>
#elif defined(KVORUM_ARM) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(KVORUM_ARM) && defined(__APPLE__)
#include <stddef.h>
#include <sys/sysctl.h>
#endif

#include <stdint.h>

namespace kvorum {
namespace {

#if defined(KVORUM_X86) && defined(_WIN32)

// A compiler for Windows has no word for it: bits of `cpuid`, and whether the system keeps the registers (`kept`, of XCR0).
inline bool has(int leaf, int word, int bits, uint64_t kept) {
  int found[4];
  __cpuid(found, 0);
  if (found[0] < leaf) return false;
  __cpuid(found, 1);
  if (!(found[2] >> 27 & 1) || (_xgetbv(0) & kept) != kept) return false;
  __cpuidex(found, leaf, 0);
  return (found[word] & bits) == bits;
}
inline bool has_avx2() {
  return has(1, 2, 1 << 12 | 1 << 29, 6) && has(7, 1, 1 << 5, 6);  // FMA, F16C; AVX2
}
inline bool has_avx512() {
  return has(7, 1, 1 << 16 | 1 << 17 | 1 << 30 | int(1u << 31), 0xe6) && has(7, 2, 1 << 11, 0xe6);  // F, DQ, BW, VL; VNNI
}

#elif defined(KVORUM_X86)

inline bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

inline bool has_avx512() {
#ifdef KVORUM_EMULATE_AVX512
  return true;
#else
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
#endif
}

#elif defined(KVORUM_ARM)

#if defined(__linux__)

// Bits that Linux promises (arch/arm64/include/uapi/asm/hwcap.h); older headers lack their names.
inline bool has_dotprod() { return getauxval(AT_HWCAP) >> 20 & 1; }   // HWCAP_ASIMDDP
inline bool has_i8mm() { return getauxval(AT_HWCAP2) >> 13 & 1; }     // HWCAP2_I8MM

#elif defined(__APPLE__)

inline bool has(const char* feature) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value;  // one that the system does not know is not there
}
inline bool has_dotprod() { return has("hw.optional.arm.FEAT_DotProd"); }
inline bool has_i8mm() { return has("hw.optional.arm.FEAT_I8MM"); }

#else

inline bool has_dotprod() { return false; }
inline bool has_i8mm() { return false; }

#endif
#endif

}  // namespace
}  // namespace kvorum
