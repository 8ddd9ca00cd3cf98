// For the NEON path of attention_kernel.h.
#pragma once
#include <arm_neon.h>

#include <cstdint>

// Four rows of four floats, `ld` apart, as columns of `to`, `ldt` apart.
static inline void transpose4(const float* x, int64_t ld, float* to, int64_t ldt) {
  const float32x4_t a0 = vld1q_f32(x), a1 = vld1q_f32(x + ld), a2 = vld1q_f32(x + 2 * ld), a3 = vld1q_f32(x + 3 * ld);
  const float32x4_t b0 = vzip1q_f32(a0, a2), b1 = vzip2q_f32(a0, a2), b2 = vzip1q_f32(a1, a3), b3 = vzip2q_f32(a1, a3);
  vst1q_f32(to, vzip1q_f32(b0, b2));
  vst1q_f32(to + ldt, vzip2q_f32(b0, b2));
  vst1q_f32(to + 2 * ldt, vzip1q_f32(b1, b3));
  vst1q_f32(to + 3 * ldt, vzip2q_f32(b1, b3));
}
