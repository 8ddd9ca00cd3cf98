// What GCC and Clang call otherwise than Microsoft's compiler. Only C and no inline functions of the standard library: files that
// use some machine's instructions include this too, and avx2.cpp says why they must not.
#pragma once
#include <stdint.h>

#ifdef _WIN32
#include <intrin.h>
#endif

namespace kvorum {
namespace {

// Asks for a cache line that is read soon.
inline void ask_for(const void* line) {
#if defined(__GNUC__) || defined(__clang__)
  __builtin_prefetch(line, 0, 2);
#elif defined(_M_X64)
  _mm_prefetch(static_cast<const char*>(line), _MM_HINT_T1);
#else
  (void)line;
#endif
}

struct Wide {
  uint64_t high, low;
};

// The product of two numbers of 64 bits.
inline Wide product(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
  const unsigned __int128 whole = static_cast<unsigned __int128>(a) * b;
  return {uint64_t(whole >> 64), uint64_t(whole)};
#else
  const uint64_t half = 0xffffffff, al = a & half, ah = a >> 32, bl = b & half, bh = b >> 32;
  const uint64_t low = al * bl, mid = ah * bl + (low >> 32), side = al * bh + (mid & half);
  return {ah * bh + (mid >> 32) + (side >> 32), side << 32 | (low & half)};
#endif
}

}  // namespace
}  // namespace kvorum
