// The AVX-512 intrinsics that the kernels here use, in plain C++ by Intel's description of them, one lane after the other: so that
// the kernels' logic can be tested on a processor that lacks them (cmake -DKVORUM_EMULATE_AVX512=ON). Slow; never shipped.
#pragma once
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

namespace emulated {

struct F {
  alignas(64) float x[16];
};
struct I {
  alignas(64) int32_t x[16];
};

template <class Op>
inline F each(Op op) {
  F r;
  for (int i = 0; i < 16; ++i) r.x[i] = op(i);
  return r;
}
template <class Op>
inline I each_int(Op op) {
  I r;
  for (int i = 0; i < 16; ++i) r.x[i] = static_cast<int32_t>(op(i));
  return r;
}
inline F load(const float* p) {
  return each([=](int i) { return p[i]; });
}
inline void save(float* p, F a) { memcpy(p, a.x, 64); }
inline I load_int(const void* p) {
  I r;
  memcpy(r.x, p, 64);
  return r;
}
// Unsigned bytes of a times signed bytes of b, four products to a lane, without saturation.
inline I dpbusd(I sum, I a, I b) {
  return each_int([&](int i) {
    uint8_t u[4];
    int8_t s[4];
    memcpy(u, &a.x[i], 4);
    memcpy(s, &b.x[i], 4);
    return sum.x[i] + u[0] * s[0] + u[1] * s[1] + u[2] * s[2] + u[3] * s[3];
  });
}
inline I srli16(I a, int by) {
  return each_int([&](int i) {
    const uint32_t v = static_cast<uint32_t>(a.x[i]);
    return ((v & 0xffff) >> by) | ((v >> 16) >> by << 16);
  });
}
inline F halves(__m256i h) {
  F r;
  _mm256_storeu_ps(r.x, _mm256_cvtph_ps(_mm256_castsi256_si128(h)));
  _mm256_storeu_ps(r.x + 8, _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)));
  return r;
}
inline I from_bytes(__m128i bytes) {
  int8_t x[16];
  memcpy(x, &bytes, 16);
  return each_int([&](int i) { return x[i]; });
}
inline F floats(I a) {
  F r;
  memcpy(r.x, a.x, 64);
  return r;
}
// As GCC and Clang expand the reductions: halves onto halves.
template <class Op>
inline float reduce(F a, Op op) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; ++i) a.x[i] = op(a.x[i], a.x[i + half]);
  return a.x[0];
}

}  // namespace emulated

#define __m512 emulated::F
#define __m512i emulated::I
#define _mm512_setzero_ps() emulated::each([](int) { return 0.0f; })
#define _mm512_set1_ps(v) emulated::each([w = float(v)](int) { return w; })
#define _mm512_loadu_ps(p) emulated::load(p)
#define _mm512_load_ps(p) emulated::load(p)
#define _mm512_storeu_ps(p, a) emulated::save(p, a)
#define _mm512_store_ps(p, a) emulated::save(p, a)
#define _mm512_add_ps(a, b) emulated::add(a, b)
#define _mm512_sub_ps(a, b) emulated::sub(a, b)
#define _mm512_mul_ps(a, b) emulated::mul(a, b)
#define _mm512_max_ps(a, b) emulated::max(a, b)
#define _mm512_fmadd_ps(a, b, c) emulated::fma3(a, b, c)
#define _mm512_fnmadd_ps(a, b, c) emulated::fnma3(a, b, c)
#define _mm512_cvtss_f32(a) ((a).x[0])
#define _mm512_reduce_add_ps(a) emulated::reduce(a, [](float p, float q) { return p + q; })
#define _mm512_reduce_max_ps(a) emulated::reduce(a, [](float p, float q) { return p > q ? p : q; })
#define _mm512_roundscale_ps(a, how) emulated::round_even(a)
#define _mm512_cmp_ps_mask(a, b, how) emulated::not_below(a, b)
#define _mm512_maskz_mul_ps(m, a, b) emulated::masked(m, emulated::mul(a, b))
#define _mm512_maskz_loadu_ps(m, p) emulated::load_some(m, p)
#define _mm512_mask_storeu_ps(p, m, a) emulated::save_some(p, m, a)
#define _mm512_cvtph_ps(h) emulated::halves(h)
#define _mm512_cvtepi8_epi32(a) emulated::from_bytes(a)
#define _mm512_cvtepi32_ps(a) emulated::to_floats(a)
#define _mm512_cvtps_epi32(a) emulated::to_ints(a)
#define _mm512_castsi512_ps(a) emulated::floats(a)
#define _mm512_setzero_si512() emulated::each_int([](int) { return 0; })
#define _mm512_set1_epi32(v) emulated::each_int([w = int32_t(v)](int) { return w; })
#define _mm512_set1_epi8(v) emulated::each_int([w = 0x01010101 * int32_t(v)](int) { return w; })
#define _mm512_loadu_si512(p) emulated::load_int(p)
#define _mm512_and_si512(a, b) emulated::both(a, b)
#define _mm512_add_epi32(a, b) emulated::add_ints(a, b)
#define _mm512_slli_epi32(a, by) emulated::slli(a, by)
#define _mm512_srli_epi16(a, by) emulated::srli16(a, by)
#define _mm512_dpbusd_epi32(sum, a, b) emulated::dpbusd(sum, a, b)

namespace emulated {

inline F add(F a, F b) { return each([&](int i) { return a.x[i] + b.x[i]; }); }
inline F sub(F a, F b) { return each([&](int i) { return a.x[i] - b.x[i]; }); }
inline F mul(F a, F b) { return each([&](int i) { return a.x[i] * b.x[i]; }); }
inline F max(F a, F b) { return each([&](int i) { return a.x[i] > b.x[i] ? a.x[i] : b.x[i]; }); }
inline F fma3(F a, F b, F c) { return each([&](int i) { return fmaf(a.x[i], b.x[i], c.x[i]); }); }
inline F fnma3(F a, F b, F c) { return each([&](int i) { return fmaf(-a.x[i], b.x[i], c.x[i]); }); }
inline F round_even(F a) { return each([&](int i) { return rintf(a.x[i]); }); }
inline F masked(unsigned m, F a) { return each([&](int i) { return m >> i & 1 ? a.x[i] : 0.0f; }); }
inline F load_some(unsigned m, const float* p) { return each([=](int i) { return m >> i & 1 ? p[i] : 0.0f; }); }
inline void save_some(float* p, unsigned m, F a) {
  for (int i = 0; i < 16; ++i)
    if (m >> i & 1) p[i] = a.x[i];
}
inline __mmask16 not_below(F a, F b) {
  unsigned m = 0;
  for (int i = 0; i < 16; ++i) m |= unsigned(a.x[i] >= b.x[i]) << i;
  return static_cast<__mmask16>(m);
}
inline F to_floats(I a) { return each([&](int i) { return static_cast<float>(a.x[i]); }); }
inline I to_ints(F a) { return each_int([&](int i) { return lrintf(a.x[i]); }); }
inline I both(I a, I b) { return each_int([&](int i) { return a.x[i] & b.x[i]; }); }
inline I add_ints(I a, I b) { return each_int([&](int i) { return uint32_t(a.x[i]) + uint32_t(b.x[i]); }); }
inline I slli(I a, int by) { return each_int([&](int i) { return uint32_t(a.x[i]) << by; }); }

}  // namespace emulated
