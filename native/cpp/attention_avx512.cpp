// Attention for AVX-512.
#ifdef KVORUM_EMULATE_AVX512
#include "emulated_avx512.h"
#else
#include <immintrin.h>
#endif
#include <math.h>

#include "attention.h"
#include "narrow.h"
#include "transpose8.h"

namespace kvorum {
namespace {

struct V {
  static constexpr int64_t n = 16, tile = 8;
  __m512 v;
  static V zero() { return {_mm512_setzero_ps()}; }
  static V load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static V load(const Half* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
  static V load(const Eight* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
  }
  static V set(float x) { return {_mm512_set1_ps(x)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  static V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static V max(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }
  static void transpose(const float* x, int64_t ld, float* to, int64_t ldt) { transpose8(x, ld, to, ldt); }
  float first() const { return _mm512_cvtss_f32(v); }
  float total() const { return _mm512_reduce_add_ps(v); }
  float top() const { return _mm512_reduce_max_ps(v); }
  // As in attention_avx2.cpp.
  static V exp(V x) {
    const __m512 low = _mm512_set1_ps(-87.0f);
    const __mmask16 seen = _mm512_cmp_ps_mask(x.v, low, _CMP_GE_OQ);
    const __m512 c = _mm512_max_ps(x.v, low);
    const __m512 k = _mm512_roundscale_ps(_mm512_mul_ps(c, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(k, _mm512_set1_ps(0.693359375f), c);
    r = _mm512_fnmadd_ps(k, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    const __m512i e = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(k), _mm512_set1_epi32(127)), 23);
    return {_mm512_maskz_mul_ps(seen, p, _mm512_castsi512_ps(e))};
  }
};
inline V operator+(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
inline V operator-(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline V operator*(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline float hyperbolic(float x) { return ::tanhf(x); }
inline float number(Half x) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(x.bits))); }

#include "attention_kernel.h"

}  // namespace

const AttentionKernels kAttentionAvx512 = {&attend, &narrow, &merge};

}  // namespace kvorum
