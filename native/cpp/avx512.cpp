// Kernels for AVX-512 with VNNI: sixteen output rows in the lanes of a register. Rows are quantised by the AVX2 kernels.
//
// No templates or inline functions of the standard library here, for the reason given in avx2.cpp.
#ifdef KVORUM_EMULATE_AVX512
#include "emulated_avx512.h"
#else
#include <immintrin.h>
#endif
#include <string.h>

#include "kernels.h"

namespace kvorum {
namespace {

constexpr int64_t kTile = 64;

inline __m512 halves(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

inline __m512i four(const int8_t* p) {
  int32_t v;
  memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}

template <int BITS>
inline void load_codes(const uint8_t* p, __m512i* w) {
  if (BITS == 4) {
    const __m512i low = _mm512_set1_epi8(15);
    for (int j = 0; j < 4; ++j) {
      const __m512i c = _mm512_loadu_si512(p + j * 64);
      w[j] = _mm512_and_si512(c, low);
      w[j + 4] = _mm512_and_si512(_mm512_srli_epi16(c, 4), low);
    }
  } else {
    for (int j = 0; j < 8; ++j) w[j] = _mm512_loadu_si512(p + j * 64);
  }
}

inline __m512i dot(const __m512i* w, const int8_t* x) {
  __m512i a = _mm512_setzero_si512(), b = _mm512_setzero_si512();
  for (int j = 0; j < 8; j += 2) {
    a = _mm512_dpbusd_epi32(a, w[j], four(x + 4 * j));
    b = _mm512_dpbusd_epi32(b, w[j + 1], four(x + 4 * j + 4));
  }
  return _mm512_add_epi32(a, b);
}

inline __m512 step(__m512 acc, __m512i d, __m512 scale, __m512 min, const float* s) {
  acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(d), _mm512_mul_ps(scale, _mm512_set1_ps(s[0])), acc);
  return _mm512_fmadd_ps(min, _mm512_set1_ps(s[1]), acc);
}

void store(const Gemm& a, int64_t b, int64_t m, __m512 v) {
  const int64_t n = b * kRows;
  float* y = a.y + m * a.ldy + n;
  const __mmask16 mask = n + kRows <= a.n ? 0xffff : static_cast<__mmask16>((1u << (a.n - n)) - 1);
  v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, a.mult + n));
  if (a.bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, a.bias + n));
  if (a.add) v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), v);
  _mm512_mask_storeu_ps(y, mask, v);
}

// As in avx2.cpp.
template <int BITS>
inline void ahead(const uint8_t* p) {
  constexpr int64_t bytes = BITS == 4 ? kBytes4 : kBytes7;
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(p + 8 * kBytes4 + i), _MM_HINT_T0);
}

// MT input rows, known when compiled: the sums stay in registers.
template <int BITS, int MT>
void few(const Gemm& a, int64_t b, int64_t m0) {
  constexpr int64_t bytes = BITS == 4 ? kBytes4 : kBytes7;
  const uint8_t* p = a.w + b * a.groups * bytes;
  __m512 acc[MT];
  for (int m = 0; m < MT; ++m) acc[m] = _mm512_setzero_ps();
  for (int64_t g = 0; g < a.groups; ++g, p += bytes) {
    const int8_t* x = a.q + (g * a.m + m0) * kGroup;
    const float* s = a.s + (g * a.m + m0) * 2;
    ahead<BITS>(p);
    __m512i w[8];
    load_codes<BITS>(p + kHead, w);
    const __m512 scale = halves(p), min = halves(p + 32);
    for (int m = 0; m < MT; ++m) acc[m] = step(acc[m], dot(w, x + m * kGroup), scale, min, s + 2 * m);
  }
  for (int m = 0; m < MT; ++m) store(a, b, m0 + m, acc[m]);
}

template <int BITS>
void many(const Gemm& a, int64_t b, int64_t m0, int64_t mt) {
  constexpr int64_t bytes = BITS == 4 ? kBytes4 : kBytes7;
  const uint8_t* p = a.w + b * a.groups * bytes;
  alignas(64) float acc[kTile][kRows];
  for (int64_t m = 0; m < mt; ++m) _mm512_store_ps(acc[m], _mm512_setzero_ps());
  for (int64_t g = 0; g < a.groups; ++g, p += bytes) {
    const int8_t* x = a.q + (g * a.m + m0) * kGroup;
    const float* s = a.s + (g * a.m + m0) * 2;
    ahead<BITS>(p);
    __m512i w[8];
    load_codes<BITS>(p + kHead, w);
    const __m512 scale = halves(p), min = halves(p + 32);
    for (int64_t m = 0; m < mt; ++m)
      _mm512_store_ps(acc[m], step(_mm512_load_ps(acc[m]), dot(w, x + m * kGroup), scale, min, s + 2 * m));
  }
  for (int64_t m = 0; m < mt; ++m) store(a, b, m0 + m, _mm512_load_ps(acc[m]));
}

template <int BITS>
void gemm(const Gemm& a, int64_t begin, int64_t end) {
  for (int64_t b = begin; b < end; ++b) {
    for (int64_t m0 = 0; m0 < a.m; m0 += kTile) {
      const int64_t mt = a.m - m0 < kTile ? a.m - m0 : kTile;
      switch (mt) {
        case 1: few<BITS, 1>(a, b, m0); break;
        case 2: few<BITS, 2>(a, b, m0); break;
        case 3: few<BITS, 3>(a, b, m0); break;
        case 4: few<BITS, 4>(a, b, m0); break;
        case 8: few<BITS, 8>(a, b, m0); break;
        default: many<BITS>(a, b, m0, mt);
      }
    }
  }
}

void quantize(const float* x, int64_t groups, Quantized out) { kAvx2.quantize(x, groups, out); }

void rms_quantize(const float* x, const float* weight, float eps, int64_t groups, Quantized out) {
  kAvx2.rms_quantize(x, weight, eps, groups, out);
}

void silu_mul_quantize(const float* gate, const float* up, int64_t groups, Quantized out) {
  kAvx2.silu_mul_quantize(gate, up, groups, out);
}

}  // namespace

extern const Kernels kAvx512;
const Kernels kAvx512 = {"avx512vnni", gemm<4>, gemm<7>, quantize, rms_quantize, silu_mul_quantize};

}  // namespace kvorum
