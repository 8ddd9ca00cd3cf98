// Kernels for AVX2 with FMA and F16C: eight output rows in the lanes of a register.
//
// No templates or inline functions of the standard library here: the linker could keep this file's copy of them for
// machines that lack these instructions.
#include <immintrin.h>
#include <string.h>

#include "exp8.h"
#include "kernels.h"

namespace kvorum {
namespace {

constexpr int64_t kTile = 32;  // input rows that go through a weight block together; their sums stay in the first cache

inline __m256 halves(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Products of four inputs with both halves of the output rows, added in pairs: 127 * 127 * 2 < 2^15. Assembly, because a
// compiler loads and multiplies far ahead, for which the registers do not suffice. Microsoft's has none and may do so.
inline void multiply(__m256i w0, __m256i w1, const int8_t* x, __m256i* t) {
#if defined(__GNUC__) || defined(__clang__)
  asm("vpbroadcastd %[x], %[t1]\n"
      "vpmaddubsw %[t1], %[w0], %[t0]\n"
      "vpmaddubsw %[t1], %[w1], %[t1]"
      : [t0] "=&x"(t[0]), [t1] "=&x"(t[1])
      : [x] "m"(*reinterpret_cast<const int8_t(*)[4]>(x)), [w0] "x"(w0), [w1] "x"(w1));
#else
  int32_t four;
  memcpy(&four, x, 4);
  t[1] = _mm256_set1_epi32(four);
  t[0] = _mm256_maddubs_epi16(w0, t[1]);
  t[1] = _mm256_maddubs_epi16(w1, t[1]);
#endif
}

// Adds them to a row's sums `d`, or begins these. With 4 bits a whole group fits 16 bits: 16 * 15 * 127 < 2^15.
template <int BITS>
inline void add(__m256i* d, __m256i w0, __m256i w1, const int8_t* x, bool first) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i t[2];
  multiply(w0, w1, x, t);
  for (int h = 0; h < 2; ++h) {
    if (BITS == 7) t[h] = _mm256_madd_epi16(t[h], ones);
    d[h] = first ? t[h] : BITS == 4 ? _mm256_add_epi16(d[h], t[h]) : _mm256_add_epi32(d[h], t[h]);
  }
#if defined(__GNUC__) || defined(__clang__)
  asm("" : "+x"(d[0]), "+x"(d[1]));  // these now, not in another order
#endif
}

inline __m256 step(__m256 acc, __m256i d, __m256 scale, __m256 min, const float* s) {
  acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(d), _mm256_mul_ps(scale, _mm256_broadcast_ss(s)), acc);
  return _mm256_fmadd_ps(min, _mm256_broadcast_ss(s + 1), acc);
}

void store(const Gemm& a, int64_t b, int64_t m, __m256 lo, __m256 hi) {
  const int64_t n = b * kRows;
  float* y = a.y + m * a.ldy + n;
  if (n + kRows <= a.n) {
    lo = _mm256_mul_ps(lo, _mm256_loadu_ps(a.mult + n));
    hi = _mm256_mul_ps(hi, _mm256_loadu_ps(a.mult + n + 8));
    if (a.bias) {
      lo = _mm256_add_ps(lo, _mm256_loadu_ps(a.bias + n));
      hi = _mm256_add_ps(hi, _mm256_loadu_ps(a.bias + n + 8));
    }
    if (a.add) {
      lo = _mm256_add_ps(_mm256_loadu_ps(y), lo);
      hi = _mm256_add_ps(_mm256_loadu_ps(y + 8), hi);
    }
    _mm256_storeu_ps(y, lo);
    _mm256_storeu_ps(y + 8, hi);
    return;
  }
  float v[kRows];
  _mm256_storeu_ps(v, lo);
  _mm256_storeu_ps(v + 8, hi);
  for (int64_t r = 0; n + r < a.n; ++r) {
    float t = v[r] * a.mult[n + r];
    if (a.bias) t += a.bias[n + r];
    y[r] = a.add ? y[r] + t : t;
  }
}

// Weights come from memory: what the loop needs some groups later, a page boundary or not, is asked for now.
template <int BITS>
inline void ahead(const uint8_t* p) {
  constexpr int64_t bytes = BITS == 4 ? kBytes4 : kBytes7;
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(p + 8 * kBytes4 + i), _MM_HINT_T0);
}

// One group of a block with MT input rows, at most five, whose sums fit the registers: both halves of the output rows at
// once, so that each code and each input is loaded once for several products.
template <int BITS, int MT>
inline void group(const uint8_t* p, const int8_t* x, const float* s, __m256 (*acc)[2]) {
  const __m256i ones = _mm256_set1_epi16(1), low = _mm256_set1_epi8(15);
  const __m256i* codes = reinterpret_cast<const __m256i*>(p + kHead);
  __m256i d[MT][2];
#ifdef __GNUC__
#pragma GCC unroll 8
#endif
  for (int j = 0; j < (BITS == 4 ? 4 : 8); ++j, codes += 2, x += 4) {
    const __m256i c0 = _mm256_loadu_si256(codes), c1 = _mm256_loadu_si256(codes + 1);
    if (BITS == 7) {
      for (int m = 0; m < MT; ++m) add<BITS>(d[m], c0, c1, x + m * kGroup, j == 0);
      continue;
    }
    __m256i w0 = _mm256_and_si256(c0, low), w1 = _mm256_and_si256(c1, low);
    for (int m = 0; m < MT; ++m) add<BITS>(d[m], w0, w1, x + m * kGroup, j == 0);
    w0 = _mm256_and_si256(_mm256_srli_epi16(c0, 4), low);
    w1 = _mm256_and_si256(_mm256_srli_epi16(c1, 4), low);
    for (int m = 0; m < MT; ++m) add<BITS>(d[m], w0, w1, x + m * kGroup + 16, false);
  }
  const __m256 scale[2] = {halves(p), halves(p + 16)}, min[2] = {halves(p + 32), halves(p + 48)};
  for (int m = 0; m < MT; ++m)
    for (int h = 0; h < 2; ++h) {
      if (BITS == 4) d[m][h] = _mm256_madd_epi16(d[m][h], ones);
      acc[m][h] = step(acc[m][h], d[m][h], scale[h], min[h], s + 2 * m);
    }
}

// MT input rows, known when compiled: sums stay in registers, at least some of them.
template <int BITS, int MT>
void few(const Gemm& a, int64_t b, int64_t m0) {
  constexpr int64_t bytes = BITS == 4 ? kBytes4 : kBytes7;
  const uint8_t* p = a.w + b * a.groups * bytes;
  __m256 acc[MT][2];
  for (int m = 0; m < MT; ++m) acc[m][0] = acc[m][1] = _mm256_setzero_ps();
  for (int64_t g = 0; g < a.groups; ++g, p += bytes) {
    ahead<BITS>(p);
    group<BITS, MT>(p, a.q + (g * a.m + m0) * kGroup, a.s + (g * a.m + m0) * 2, acc);
  }
  for (int m = 0; m < MT; ++m) store(a, b, m0 + m, acc[m][0], acc[m][1]);
}

// Up to kTile input rows: each group of weights goes through them by fours, and is in the first cache after the first.
template <int BITS>
void many(const Gemm& a, int64_t b, int64_t m0, int64_t mt) {
  constexpr int64_t bytes = BITS == 4 ? kBytes4 : kBytes7;
  const uint8_t* p = a.w + b * a.groups * bytes;
  __m256 acc[kTile][2];
  for (int64_t m = 0; m < mt; ++m) acc[m][0] = acc[m][1] = _mm256_setzero_ps();
  for (int64_t g = 0; g < a.groups; ++g, p += bytes) {
    const int8_t* x = a.q + (g * a.m + m0) * kGroup;
    const float* s = a.s + (g * a.m + m0) * 2;
    ahead<BITS>(p);
    int64_t m = 0;
    for (; m + 5 < mt; m += 4) group<BITS, 4>(p, x + m * kGroup, s + 2 * m, acc + m);
    switch (mt - m) {
      case 5: group<BITS, 5>(p, x + m * kGroup, s + 2 * m, acc + m); break;
      case 4: group<BITS, 4>(p, x + m * kGroup, s + 2 * m, acc + m); break;
      case 3: group<BITS, 3>(p, x + m * kGroup, s + 2 * m, acc + m); break;
      default: group<BITS, 2>(p, x + m * kGroup, s + 2 * m, acc + m);
    }
  }
  for (int64_t m = 0; m < mt; ++m) store(a, b, m0 + m, acc[m][0], acc[m][1]);
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
        default: many<BITS>(a, b, m0, mt);
      }
    }
  }
}

inline float top_of(__m256 v) {
  __m128 t = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  t = _mm_max_ps(t, _mm_movehl_ps(t, t));
  return _mm_cvtss_f32(_mm_max_ss(t, _mm_movehdup_ps(t)));
}

inline void put(const __m256* v, int64_t g, Quantized out) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 t = _mm256_andnot_ps(sign, v[0]);
  for (int i = 1; i < 4; ++i) t = _mm256_max_ps(t, _mm256_andnot_ps(sign, v[i]));
  const float top = top_of(t);
  const __m256 inverse = _mm256_set1_ps(top > 0 ? 127.0f / top : 0.0f);
  __m256i c[4];
  for (int i = 0; i < 4; ++i) c[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
  const __m256i sums = _mm256_add_epi32(_mm256_add_epi32(c[0], c[1]), _mm256_add_epi32(c[2], c[3]));
  __m128i u = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  u = _mm_add_epi32(u, _mm_shuffle_epi32(u, 0x4e));
  u = _mm_add_epi32(u, _mm_shuffle_epi32(u, 0xb1));
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(c[0], c[1]), _mm256_packs_epi32(c[2], c[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out.q + g * out.m * kGroup),
                      _mm256_permutevar8x32_epi32(bytes, order));
  float* s = out.s + g * out.m * 2;
  s[0] = top / 127.0f;
  s[1] = s[0] * float(_mm_cvtsi128_si32(u));
}

void quantize(const float* x, int64_t groups, Quantized out) {
  for (int64_t g = 0; g < groups; ++g, x += kGroup) {
    __m256 v[4];
    for (int i = 0; i < 4; ++i) v[i] = _mm256_loadu_ps(x + 8 * i);
    put(v, g, out);
  }
}

void rms_quantize(const float* x, const float* weight, float eps, int64_t groups, Quantized out) {
  __m256 acc[4];
  for (int i = 0; i < 4; ++i) acc[i] = _mm256_setzero_ps();
  for (int64_t g = 0; g < groups; ++g)
    for (int i = 0; i < 4; ++i) {
      const __m256 t = _mm256_loadu_ps(x + g * kGroup + 8 * i);
      acc[i] = _mm256_fmadd_ps(t, t, acc[i]);
    }
  float lanes[8];
  _mm256_storeu_ps(lanes, _mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3])));
  float squares = 0;
  for (int i = 0; i < 8; ++i) squares += lanes[i];
  const float root = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(squares / float(groups * kGroup) + eps)));
  const __m256 r = _mm256_set1_ps(1.0f / root);
  for (int64_t g = 0; g < groups; ++g) {
    __m256 v[4];
    for (int i = 0; i < 4; ++i) {
      const int64_t k = g * kGroup + 8 * i;
      v[i] = _mm256_mul_ps(_mm256_loadu_ps(weight + k), _mm256_mul_ps(_mm256_loadu_ps(x + k), r));
    }
    put(v, g, out);
  }
}

void silu_mul_quantize(const float* gate, const float* up, int64_t groups, Quantized out) {
  const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
  for (int64_t g = 0; g < groups; ++g) {
    __m256 v[4];
    for (int i = 0; i < 4; ++i) {
      const int64_t k = g * kGroup + 8 * i;
      const __m256 t = _mm256_loadu_ps(gate + k);
      const __m256 bottom = _mm256_add_ps(one, exp8(_mm256_xor_ps(t, sign)));
      v[i] = _mm256_mul_ps(_mm256_div_ps(t, bottom), _mm256_loadu_ps(up + k));
    }
    put(v, g, out);
  }
}

}  // namespace

extern const Kernels kAvx2;
const Kernels kAvx2 = {"avx2", gemm<4>, gemm<7>, quantize, rms_quantize, silu_mul_quantize};

}  // namespace kvorum
