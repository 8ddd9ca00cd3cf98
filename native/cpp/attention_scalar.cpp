// Attention in plain C++: the path of every other processor, and what the others are compared with.
#include <math.h>
#include <string.h>

#include "attention.h"

namespace kvorum {
namespace {

// Exact: a float holds every half. 2^112 brings the exponent of a half to that of a float; what was subnormal is so no more.
inline float number(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = uint32_t(x.bits & 0x7fff) << 13;
  float f;
  memcpy(&f, &rest, 4);
  f *= 0x1p112f;
  uint32_t bits;
  memcpy(&bits, &f, 4);
  if ((x.bits & 0x7c00) == 0x7c00) bits = rest | 0x7f800000;  // infinite, or no number
  bits |= sign;
  memcpy(&f, &bits, 4);
  return f;
}

// To the nearest, of two to the even one. Below the least normal half, adding 1/2 leaves a float whose last bits are the half's.
inline Half nearest(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return {uint16_t(sign | 0x7e00)};
  if (size >= 0x477ff000) return {uint16_t(sign | 0x7c00)};
  if (size < 0x38800000) {
    float f;
    memcpy(&f, &size, 4);
    f += 0.5f;
    memcpy(&bits, &f, 4);
    return {uint16_t(sign | (bits - 0x3f000000))};
  }
  return {uint16_t(sign | ((size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13))};
}

inline void narrow(const float* x, int64_t n, Half* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = nearest(x[i]);
}

struct V {
  static constexpr int64_t n = 4, tile = 1;
  float v[4];
  static V set(float x) { return {{x, x, x, x}}; }
  static V zero() { return set(0); }
  static V load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static V load(const Half* p) { return {{number(p[0]), number(p[1]), number(p[2]), number(p[3])}}; }
  static V load(const Eight* p) { return {{float(p[0].code), float(p[1].code), float(p[2].code), float(p[3].code)}}; }
  void store(float* p) const {
    for (int i = 0; i < 4; ++i) p[i] = v[i];
  }
  static V fma(V a, V b, V c) {
    for (int i = 0; i < 4; ++i) c.v[i] += a.v[i] * b.v[i];
    return c;
  }
  static V max(V a, V b) {
    for (int i = 0; i < 4; ++i) a.v[i] = a.v[i] < b.v[i] ? b.v[i] : a.v[i];
    return a;
  }
  static void transpose(const float* x, int64_t, float* to, int64_t) { *to = *x; }
  float first() const { return v[0]; }
  float total() const { return (v[0] + v[1]) + (v[2] + v[3]); }
  float top() const {
    const float a = v[0] < v[1] ? v[1] : v[0], b = v[2] < v[3] ? v[3] : v[2];
    return a < b ? b : a;
  }
  static V exp(V x) {
    for (int i = 0; i < 4; ++i) x.v[i] = x.v[i] < -87.0f ? 0.0f : ::expf(x.v[i]);
    return x;
  }
};
inline V operator+(V a, V b) {
  for (int i = 0; i < 4; ++i) a.v[i] += b.v[i];
  return a;
}
inline V operator-(V a, V b) {
  for (int i = 0; i < 4; ++i) a.v[i] -= b.v[i];
  return a;
}
inline V operator*(V a, V b) {
  for (int i = 0; i < 4; ++i) a.v[i] *= b.v[i];
  return a;
}
inline float hyperbolic(float x) { return ::tanhf(x); }

#include "attention_kernel.h"

}  // namespace

const AttentionKernels kAttentionScalar = {&attend, &narrow, &merge};

}  // namespace kvorum
