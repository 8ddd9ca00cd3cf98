// The passes of sampling for NEON; eight sums side by side, in the order of sampling_avx2.cpp.
#include <arm_neon.h>

#include "exp4.h"
#include "sampling_kernels.h"

namespace kvorum {
namespace {

float top(const float* x, int64_t n) {
  float32x4_t a[8];
  for (float32x4_t& each : a) each = vdupq_n_f32(-__builtin_inff());
  uint32x4_t same = vdupq_n_u32(~0u);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32)
    for (int j = 0; j < 8; ++j) {
      const float32x4_t v = vld1q_f32(x + i + 4 * j);
      same = vandq_u32(same, vceqq_f32(v, v));
      a[j] = vmaxnmq_f32(v, a[j]);
    }
  for (int j = 1; j < 8; ++j) a[0] = vmaxnmq_f32(a[0], a[j]);
  float best = vmaxnmvq_f32(a[0]);
  bool nan = vminvq_u32(same) == 0;
  for (; i < n; ++i) {
    nan |= x[i] != x[i];
    best = x[i] > best ? x[i] : best;
  }
  return nan ? __builtin_nanf("") : best;
}

void weigh(const float* x, int64_t n, float top, float divisor, float* weights, float* sums) {
  const float32x4_t t = vdupq_n_f32(top), d = vdupq_n_f32(divisor), low = vdupq_n_f32(-87.0f);
  const auto weight = [&](const float* p) {
    const float32x4_t v = vdivq_f32(vsubq_f32(vld1q_f32(p), t), d);
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(exp4(v)), vcgeq_f32(v, low)));
  };
  for (int64_t begin = 0; begin < n; begin += kSum, ++sums) {
    const int64_t end = begin + kSum < n ? begin + kSum : n;
    float32x4_t a[8];
    for (float32x4_t& each : a) each = vdupq_n_f32(0);
    int64_t i = begin;
    for (; i + 32 <= end; i += 32)
      for (int j = 0; j < 8; ++j) {
        const float32x4_t w = weight(x + i + 4 * j);
        vst1q_f32(weights + i + 4 * j, w);
        a[j] = vaddq_f32(a[j], w);
      }
    for (; i < end; i += 4) {  // the last ones of the row
      float some[4];
      for (int64_t k = 0; k < 4; ++k) some[k] = i + k < end ? x[i + k] : -__builtin_inff();
      const float32x4_t w = weight(some);
      vst1q_f32(some, w);
      for (int64_t k = 0; k < 4 && i + k < end; ++k) weights[i + k] = some[k];
      const int64_t half = (i - begin) / 4 % 2;
      a[half] = vaddq_f32(a[half], w);
    }
    const float32x4_t lower = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[4], a[6]));
    const float32x4_t upper = vaddq_f32(vaddq_f32(a[1], a[3]), vaddq_f32(a[5], a[7]));
    *sums = vaddvq_f32(lower) + vaddvq_f32(upper);  // pairs, then pairs of pairs
  }
}

}  // namespace

const SamplingKernels kSamplingNeon = {top, weigh};

}  // namespace kvorum
