// Attention in plain C++: the path of every other processor, and what the others are compared with.
#include <math.h>

#include "attention.h"

namespace kvorum {
namespace {

struct V {
  static constexpr int64_t n = 4, tile = 1;
  float v[4];
  static V set(float x) { return {{x, x, x, x}}; }
  static V zero() { return set(0); }
  static V load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
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

const AttentionKernels kAttentionScalar = {&attend, &merge};

}  // namespace kvorum
