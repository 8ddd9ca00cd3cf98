// Kernels for NEON alone, which every 64-bit ARM has: products without the instructions for dot products, and the quantisation of
// rows, which all paths on ARM share.
#include <arm_neon.h>

#include "exp4.h"
#include "kernels.h"

namespace kvorum {
namespace {

// Products of four inputs of one row with four output rows are sixteen in two registers of 16 bits. With 4 bits a whole group fits
// them: 8 * 15 * 127 < 2^15; with 7 bits two do: 2 * 127 * 127 < 2^15.
template <int MT>
struct Dots {
  int32x4_t d[MT][4];

  template <int C>
  static int16x8x2_t multiply(int8x16_t w, int8x16_t x) {
    const int8x16_t four = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), C));
    return {vmull_s8(vget_low_s8(w), vget_low_s8(four)), vmull_high_s8(w, four)};
  }
  template <int C>
  static void more(int16x8x2_t& t, int8x16_t w, int8x16_t x) {
    const int8x16_t four = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), C));
    t.val[0] = vmlal_s8(t.val[0], vget_low_s8(w), vget_low_s8(four));
    t.val[1] = vmlal_high_s8(t.val[1], w, four);
  }
  static int32x4_t rows(int16x8x2_t t) { return vpaddq_s32(vpaddlq_s16(t.val[0]), vpaddlq_s16(t.val[1])); }

  void group4(const uint8_t* codes, const int8_t* x) {
    const uint8x16_t low = vdupq_n_u8(15);
    for (int r = 0; r < 4; ++r, codes += 16) {
      int8x16_t w[8];
      for (int j = 0; j < 4; ++j) {
        const uint8x16_t c = vld1q_u8(codes + 64 * j);
        w[j] = vreinterpretq_s8_u8(vandq_u8(c, low));
        w[j + 4] = vreinterpretq_s8_u8(vshrq_n_u8(c, 4));
      }
      for (int m = 0; m < MT; ++m) {
        const int8x16_t a = vld1q_s8(x + m * kGroup), b = vld1q_s8(x + m * kGroup + 16);
        int16x8x2_t t = multiply<0>(w[0], a);
        more<1>(t, w[1], a);
        more<2>(t, w[2], a);
        more<3>(t, w[3], a);
        more<0>(t, w[4], b);
        more<1>(t, w[5], b);
        more<2>(t, w[6], b);
        more<3>(t, w[7], b);
        d[m][r] = rows(t);
      }
    }
  }

  void group7(const uint8_t* codes, const int8_t* x) {
    for (int r = 0; r < 4; ++r, codes += 16) {
      int8x16_t w[8];
      for (int j = 0; j < 8; ++j) w[j] = vld1q_s8(reinterpret_cast<const int8_t*>(codes + 64 * j));
      for (int m = 0; m < MT; ++m) {
        const int8x16_t a = vld1q_s8(x + m * kGroup), b = vld1q_s8(x + m * kGroup + 16);
        int16x8x2_t t = multiply<0>(w[0], a);
        more<1>(t, w[1], a);
        int32x4_t low = vpaddlq_s16(t.val[0]), high = vpaddlq_s16(t.val[1]);
        t = multiply<2>(w[2], a);
        more<3>(t, w[3], a);
        low = vpadalq_s16(low, t.val[0]), high = vpadalq_s16(high, t.val[1]);
        t = multiply<0>(w[4], b);
        more<1>(t, w[5], b);
        low = vpadalq_s16(low, t.val[0]), high = vpadalq_s16(high, t.val[1]);
        t = multiply<2>(w[6], b);
        more<3>(t, w[7], b);
        low = vpadalq_s16(low, t.val[0]), high = vpadalq_s16(high, t.val[1]);
        d[m][r] = vpaddq_s32(low, high);
      }
    }
  }
};

#include "neon_products.h"

inline void put(const float32x4_t* v, int64_t g, Quantized out) {
  float32x4_t t = vabsq_f32(v[0]);
  for (int i = 1; i < 8; ++i) t = vmaxnmq_f32(t, vabsq_f32(v[i]));
  const float top = vmaxnmvq_f32(t);
  const float inverse = top > 0 ? 127.0f / top : 0.0f;
  int32x4_t c[8];
  for (int i = 0; i < 8; ++i) c[i] = vcvtnq_s32_f32(vmulq_n_f32(v[i], inverse));
  int32x4_t sum = c[0];
  for (int i = 1; i < 8; ++i) sum = vaddq_s32(sum, c[i]);
  int8_t* q = out.q + g * out.m * kGroup;
  for (int i = 0; i < 8; i += 4) {
    const int16x8_t low = vcombine_s16(vqmovn_s32(c[i]), vqmovn_s32(c[i + 1]));
    const int16x8_t high = vcombine_s16(vqmovn_s32(c[i + 2]), vqmovn_s32(c[i + 3]));
    vst1q_s8(q + 4 * i, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
  }
  float* s = out.s + g * out.m * 2;
  s[0] = top / 127.0f;
  s[1] = s[0] * float(vaddvq_s32(sum));
}

void quantize(const float* x, int64_t groups, Quantized out) {
  for (int64_t g = 0; g < groups; ++g, x += kGroup) {
    float32x4_t v[8];
    for (int i = 0; i < 8; ++i) v[i] = vld1q_f32(x + 4 * i);
    put(v, g, out);
  }
}

void rms_quantize(const float* x, const float* weight, float eps, int64_t groups, Quantized out) {
  float32x4_t acc[8];
  for (float32x4_t& each : acc) each = vdupq_n_f32(0);
  for (int64_t g = 0; g < groups; ++g)
    for (int i = 0; i < 8; ++i) {
      const float32x4_t t = vld1q_f32(x + g * kGroup + 4 * i);
      acc[i] = vfmaq_f32(acc[i], t, t);
    }
  float lanes[8];  // in the order of avx2.cpp
  for (int i = 0; i < 2; ++i)
    vst1q_f32(lanes + 4 * i, vaddq_f32(vaddq_f32(acc[i], acc[i + 2]), vaddq_f32(acc[i + 4], acc[i + 6])));
  float squares = 0;
  for (float lane : lanes) squares += lane;
  const float r = 1.0f / __builtin_sqrtf(squares / float(groups * kGroup) + eps);
  for (int64_t g = 0; g < groups; ++g) {
    float32x4_t v[8];
    for (int i = 0; i < 8; ++i) {
      const int64_t k = g * kGroup + 4 * i;
      v[i] = vmulq_f32(vld1q_f32(weight + k), vmulq_n_f32(vld1q_f32(x + k), r));
    }
    put(v, g, out);
  }
}

void silu_mul_quantize(const float* gate, const float* up, int64_t groups, Quantized out) {
  for (int64_t g = 0; g < groups; ++g) {
    float32x4_t v[8];
    for (int i = 0; i < 8; ++i) {
      const int64_t k = g * kGroup + 4 * i;
      const float32x4_t t = vld1q_f32(gate + k);
      const float32x4_t bottom = vaddq_f32(vdupq_n_f32(1.0f), exp4(vnegq_f32(t)));
      v[i] = vmulq_f32(vdivq_f32(t, bottom), vld1q_f32(up + k));
    }
    put(v, g, out);
  }
}

}  // namespace

const Kernels kNeon = {"neon", gemm<4>, gemm<7>, quantize, rms_quantize, silu_mul_quantize};

}  // namespace kvorum
