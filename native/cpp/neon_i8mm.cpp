// Products for NEON with i8mm (SMMLA): two input rows with two output rows, eight products of bytes for each of the four pairs in one
// instruction. A single row takes dotprod, which every processor with i8mm has. Rows are quantised by neon.cpp.
//
// No templates or inline functions of the standard library here; avx2.cpp says why.
#include <arm_neon.h>

#include "kernels.h"

namespace kvorum {
namespace {

// Inputs 8j..8j+7 of two input rows, one behind the other.
struct Pair {
  int8x16_t x[4];

  Pair(const int8_t* first, const int8_t* second) {
    for (int half = 0; half < 2; ++half) {
      const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(first + 16 * half));
      const int64x2_t b = vreinterpretq_s64_s8(vld1q_s8(second + 16 * half));
      x[2 * half] = vreinterpretq_s8_s64(vzip1q_s64(a, b));
      x[2 * half + 1] = vreinterpretq_s8_s64(vzip2q_s64(a, b));
    }
  }
};

// Codes of inputs 4j..4j+3 and 4j+4..4j+7 of four output rows: now eight inputs of rows 0 and 1, and of rows 2 and 3.
inline int8x16_t first_rows(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}
inline int8x16_t last_rows(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

template <int MT>
struct Dots {
  int32x4_t d[MT][4];

  // The sums of pairs of input rows (and of a last single one) with output rows 4r..4r+3, from their codes of eight registers.
  void rows(int r, const int8x16_t* w, const Pair* pairs, const int8x16_t* single) {
    int32x4_t low[MT / 2 + 1], high[MT / 2 + 1];
    for (int m = 0; m < MT / 2; ++m) low[m] = high[m] = vdupq_n_s32(0);
    for (int j = 0; j < 4; ++j) {
      const int8x16_t a = first_rows(w[2 * j], w[2 * j + 1]), b = last_rows(w[2 * j], w[2 * j + 1]);
      for (int m = 0; m < MT / 2; ++m) {
        low[m] = vmmlaq_s32(low[m], pairs[m].x[j], a);
        high[m] = vmmlaq_s32(high[m], pairs[m].x[j], b);
      }
    }
    for (int m = 0; m < MT / 2; ++m) {
      const int64x2_t a = vreinterpretq_s64_s32(low[m]), b = vreinterpretq_s64_s32(high[m]);
      d[2 * m][r] = vreinterpretq_s32_s64(vzip1q_s64(a, b));
      d[2 * m + 1][r] = vreinterpretq_s32_s64(vzip2q_s64(a, b));
    }
    if (MT % 2) {
      int32x4_t t = vdupq_n_s32(0);
      t = vdotq_laneq_s32(t, w[0], single[0], 0);
      t = vdotq_laneq_s32(t, w[1], single[0], 1);
      t = vdotq_laneq_s32(t, w[2], single[0], 2);
      t = vdotq_laneq_s32(t, w[3], single[0], 3);
      t = vdotq_laneq_s32(t, w[4], single[1], 0);
      t = vdotq_laneq_s32(t, w[5], single[1], 1);
      t = vdotq_laneq_s32(t, w[6], single[1], 2);
      d[MT - 1][r] = vdotq_laneq_s32(t, w[7], single[1], 3);
    }
  }

  template <class F>
  void each(const int8_t* x, F&& codes) {
    const auto row = [&](int m) { return x + (m < MT ? m : MT - 1) * kGroup; };  // there may be nothing behind the last one
    const int8x16_t single[2] = {vld1q_s8(row(MT - 1)), vld1q_s8(row(MT - 1) + 16)};
    const Pair pairs[2] = {Pair(row(0), row(1)), Pair(row(2), row(3))};
    for (int r = 0; r < 4; ++r) {
      int8x16_t w[8];
      codes(r, w);
      rows(r, w, pairs, single);
    }
  }

  void group4(const uint8_t* p, const int8_t* x) {
    each(x, [&](int r, int8x16_t* w) {
      for (int j = 0; j < 4; ++j) {
        const uint8x16_t c = vld1q_u8(p + 64 * j + 16 * r);
        w[j] = vreinterpretq_s8_u8(vandq_u8(c, vdupq_n_u8(15)));
        w[j + 4] = vreinterpretq_s8_u8(vshrq_n_u8(c, 4));
      }
    });
  }

  void group7(const uint8_t* p, const int8_t* x) {
    each(x, [&](int r, int8x16_t* w) {
      for (int j = 0; j < 8; ++j) w[j] = vld1q_s8(reinterpret_cast<const int8_t*>(p + 64 * j + 16 * r));
    });
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

const Kernels kNeonI8mm = {"neon-i8mm", gemm<4>, gemm<7>, quantize, rms_quantize, silu_mul_quantize};

}  // namespace kvorum
