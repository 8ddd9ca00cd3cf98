// Products for NEON with dotprod (SDOT): four products of bytes for each of four output rows in one instruction. Rows are quantised
// by neon.cpp.
//
// No templates or inline functions of the standard library here; avx2.cpp says why.
#include <arm_neon.h>

#include "kernels.h"

namespace kvorum {
namespace {

template <int MT>
struct Dots {
  int32x4_t d[MT][4];

  // A register of codes holds inputs 4j..4j+3 of four output rows; x[m], a half of a group's inputs.
  template <int J>
  void add(int r, int8x16_t w, const int8x16_t* x) {
    for (int m = 0; m < MT; ++m) d[m][r] = vdotq_laneq_s32(d[m][r], w, x[m], J);
  }

  template <int J>
  void step4(const uint8_t* codes, const int8x16_t* a, const int8x16_t* b) {
    for (int r = 0; r < 4; ++r) {
      const uint8x16_t c = vld1q_u8(codes + 64 * J + 16 * r);
      add<J>(r, vreinterpretq_s8_u8(vandq_u8(c, vdupq_n_u8(15))), a);
      add<J>(r, vreinterpretq_s8_u8(vshrq_n_u8(c, 4)), b);
    }
  }

  template <int J>
  void step7(const uint8_t* codes, const int8x16_t* x) {
    for (int r = 0; r < 4; ++r) add<J>(r, vld1q_s8(reinterpret_cast<const int8_t*>(codes + 64 * J + 16 * r)), x);
  }

  void begin() {
    for (int m = 0; m < MT; ++m)
      for (int r = 0; r < 4; ++r) d[m][r] = vdupq_n_s32(0);
  }

  void group4(const uint8_t* codes, const int8_t* x) {
    int8x16_t a[MT], b[MT];
    for (int m = 0; m < MT; ++m) a[m] = vld1q_s8(x + m * kGroup), b[m] = vld1q_s8(x + m * kGroup + 16);
    begin();
    step4<0>(codes, a, b);
    step4<1>(codes, a, b);
    step4<2>(codes, a, b);
    step4<3>(codes, a, b);
  }

  void group7(const uint8_t* codes, const int8_t* x) {
    begin();
    for (int half = 0; half < 2; ++half, codes += 256, x += 16) {
      int8x16_t a[MT];
      for (int m = 0; m < MT; ++m) a[m] = vld1q_s8(x + m * kGroup);
      step7<0>(codes, a);
      step7<1>(codes, a);
      step7<2>(codes, a);
      step7<3>(codes, a);
    }
  }
};

#include "neon_products.h"

void quantize(const float* x, int64_t groups, Quantized out) { kNeon.quantize(x, groups, out); }

void rms_quantize(const float* x, const float* weight, float eps, int64_t groups, Quantized out) {
  kNeon.rms_quantize(x, weight, eps, groups, out);
}

void silu_mul_quantize(const float* gate, const float* up, int64_t groups, Quantized out) {
  kNeon.silu_mul_quantize(gate, up, groups, out);
}

}  // namespace

const Kernels kNeonDotprod = {"neon-dotprod", gemm<4>, gemm<7>, quantize, rms_quantize, silu_mul_quantize};

}  // namespace kvorum
