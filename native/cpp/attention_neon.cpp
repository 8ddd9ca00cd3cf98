// Attention for NEON, which every 64-bit ARM has; a vector is two registers, so that sums have the order of attention_avx2.cpp.
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "attention.h"
#include "transpose4.h"

namespace kvorum {
namespace {

inline float32x4_t halves(const Half* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))));
}

inline float32x4_t bytes(const Eight* p) {
  int32_t four;
  memcpy(&four, p, 4);
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(uint32_t(four))))));
}

inline float number(Half x) { return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(x.bits))), 0); }

inline void narrow(const float* x, int64_t n, Half* out) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    vst1_u16(reinterpret_cast<uint16_t*>(out + i), vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
  for (; i < n; ++i) out[i].bits = vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(x[i]))), 0);
}

// 2^k * e^r with |r| <= ln 2 / 2 (Cephes' polynomial), relative error 2e-7; 0 below -87.
inline float32x4_t exp_or_zero(float32x4_t x) {
  const float32x4_t low = vdupq_n_f32(-87.0f);
  const uint32x4_t seen = vcgeq_f32(x, low);
  const float32x4_t c = vmaxnmq_f32(x, low);
  const float32x4_t k = vrndnq_f32(vmulq_f32(c, vdupq_n_f32(1.44269504f)));
  float32x4_t r = vfmsq_f32(c, k, vdupq_n_f32(0.693359375f));
  r = vfmsq_f32(r, k, vdupq_n_f32(-2.12194440e-4f));
  float32x4_t p = vdupq_n_f32(1.9875691500e-4f);
  p = vfmaq_f32(vdupq_n_f32(1.3981999507e-3f), p, r);
  p = vfmaq_f32(vdupq_n_f32(8.3334519073e-3f), p, r);
  p = vfmaq_f32(vdupq_n_f32(4.1665795894e-2f), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.6666665459e-1f), p, r);
  p = vfmaq_f32(vdupq_n_f32(5.0000001201e-1f), p, r);
  p = vfmaq_f32(vaddq_f32(r, vdupq_n_f32(1.0f)), p, vmulq_f32(r, r));
  const int32x4_t e = vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(k), vdupq_n_s32(127)), 23);
  return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(vmulq_f32(p, vreinterpretq_f32_s32(e))), seen));
}

struct V {
  static constexpr int64_t n = 8, tile = 4;
  float32x4_t a, b;
  static V zero() { return set(0); }
  static V load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
  static V load(const Half* p) { return {halves(p), halves(p + 4)}; }
  static V load(const Eight* p) { return {bytes(p), bytes(p + 4)}; }
  static V set(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
  void store(float* p) const {
    vst1q_f32(p, a);
    vst1q_f32(p + 4, b);
  }
  static V fma(V x, V y, V z) { return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b)}; }
  static V max(V x, V y) { return {vmaxnmq_f32(x.a, y.a), vmaxnmq_f32(x.b, y.b)}; }
  static void transpose(const float* x, int64_t ld, float* to, int64_t ldt) { transpose4(x, ld, to, ldt); }
  float first() const { return vgetq_lane_f32(a, 0); }
  float total() const {
    const float32x4_t four = vaddq_f32(a, b);
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }
  float top() const { return vmaxnmvq_f32(vmaxnmq_f32(a, b)); }
  static V exp(V x) { return {exp_or_zero(x.a), exp_or_zero(x.b)}; }
};
inline V operator+(V x, V y) { return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b)}; }
inline V operator-(V x, V y) { return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b)}; }
inline V operator*(V x, V y) { return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b)}; }
inline float hyperbolic(float x) { return ::tanhf(x); }

#include "attention_kernel.h"

}  // namespace

const AttentionKernels kAttentionNeon = {&attend, &narrow, &merge};

}  // namespace kvorum
