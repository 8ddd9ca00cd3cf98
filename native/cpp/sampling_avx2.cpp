// The passes of sampling for AVX2. No templates or inline functions of the standard library here; avx2.cpp says why.
#include <immintrin.h>
#include <math.h>

#include "exp8.h"
#include "sampling_kernels.h"

namespace kvorum {
namespace {

float top(const float* x, int64_t n) {
  const __m256 low = _mm256_set1_ps(-INFINITY);
  __m256 a[4] = {low, low, low, low}, odd = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 32 <= n; i += 32)
    for (int j = 0; j < 4; ++j) {
      const __m256 v = _mm256_loadu_ps(x + i + 8 * j);
      odd = _mm256_or_ps(odd, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
      a[j] = _mm256_max_ps(v, a[j]);
    }
  const __m256 t = _mm256_max_ps(_mm256_max_ps(a[0], a[1]), _mm256_max_ps(a[2], a[3]));
  float lanes[8], best = -INFINITY;
  _mm256_storeu_ps(lanes, t);
  for (float lane : lanes) best = lane > best ? lane : best;
  bool nan = _mm256_movemask_ps(odd);
  for (; i < n; ++i) {
    nan |= x[i] != x[i];
    best = x[i] > best ? x[i] : best;
  }
  return nan ? NAN : best;
}

void weigh(const float* x, int64_t n, float top, float divisor, float* weights, float* sums) {
  const __m256 t = _mm256_set1_ps(top), d = _mm256_set1_ps(divisor), low = _mm256_set1_ps(-87.0f);
  const auto weight = [&](const float* p) {
    const __m256 v = _mm256_div_ps(_mm256_sub_ps(_mm256_loadu_ps(p), t), d);
    return _mm256_and_ps(exp8(v), _mm256_cmp_ps(v, low, _CMP_GE_OQ));
  };
  for (int64_t begin = 0; begin < n; begin += kSum, ++sums) {
    const int64_t end = begin + kSum < n ? begin + kSum : n;
    __m256 a[4];
    for (__m256& each : a) each = _mm256_setzero_ps();
    int64_t i = begin;
    for (; i + 32 <= end; i += 32)
      for (int j = 0; j < 4; ++j) {
        const __m256 w = weight(x + i + 8 * j);
        _mm256_storeu_ps(weights + i + 8 * j, w);
        a[j] = _mm256_add_ps(a[j], w);
      }
    for (; i < end; i += 8) {  // the last ones of the row
      float some[8];
      for (int64_t k = 0; k < 8; ++k) some[k] = i + k < end ? x[i + k] : -INFINITY;
      const __m256 w = weight(some);
      _mm256_storeu_ps(some, w);
      for (int64_t k = 0; k < 8 && i + k < end; ++k) weights[i + k] = some[k];
      a[0] = _mm256_add_ps(a[0], w);
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, _mm256_add_ps(_mm256_add_ps(a[0], a[1]), _mm256_add_ps(a[2], a[3])));
    *sums = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  }
}

}  // namespace

const SamplingKernels kSamplingAvx2 = {top, weigh};

}  // namespace kvorum
