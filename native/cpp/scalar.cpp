// The plain C++ twin of every kernel: the reference that the fast paths are checked against, and the path of other machines.
#include <cmath>
#include <cstring>

#include "kernels.h"

namespace kvorum {
namespace {

float half(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  const uint32_t sign = uint32_t(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 31, mantissa = h & 1023;
  if (exponent == 0) {
    const float v = std::ldexp(float(mantissa), -24);
    return sign ? -v : v;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | (mantissa << 13);
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}

template <int BITS>
void gemm(const Gemm& a, int64_t begin, int64_t end) {
  constexpr int64_t bytes = BITS == 4 ? kBytes4 : kBytes7;
  for (int64_t b = begin; b < end; ++b) {
    for (int64_t m = 0; m < a.m; ++m) {
      float acc[kRows] = {};
      for (int64_t g = 0; g < a.groups; ++g) {
        const uint8_t* p = a.w + (b * a.groups + g) * bytes;
        const uint8_t* codes = p + kHead;
        const int8_t* x = a.q + (g * a.m + m) * kGroup;
        const float* s = a.s + (g * a.m + m) * 2;
        int32_t dot[kRows] = {};
        for (int j = 0; j < (BITS == 4 ? 4 : 8); ++j)
          for (int r = 0; r < kRows; ++r)
            for (int i = 0; i < 4; ++i) {
              const int32_t c = codes[(j * kRows + r) * 4 + i];
              if (BITS == 4)
                dot[r] += (c & 15) * x[4 * j + i] + (c >> 4) * x[16 + 4 * j + i];
              else
                dot[r] += c * x[4 * j + i];
            }
        for (int r = 0; r < kRows; ++r)
          acc[r] += float(dot[r]) * (half(p + 2 * r) * s[0]) + half(p + 2 * kRows + 2 * r) * s[1];
      }
      for (int64_t r = 0; r < kRows && b * kRows + r < a.n; ++r) {
        const int64_t n = b * kRows + r;
        float v = a.mult[n] * acc[r];
        if (a.bias) v += a.bias[n];
        float* y = a.y + m * a.ldy + n;
        *y = a.add ? *y + v : v;
      }
    }
  }
}

void put(const float* v, int64_t g, Quantized out) {
  float top = 0;
  for (int i = 0; i < kGroup; ++i) top = std::fmax(top, std::fabs(v[i]));
  const float inverse = top > 0 ? 127.0f / top : 0.0f;
  int8_t* q = out.q + g * out.m * kGroup;
  int32_t sum = 0;
  for (int i = 0; i < kGroup; ++i) {
    q[i] = int8_t(std::nearbyint(v[i] * inverse));
    sum += q[i];
  }
  float* s = out.s + g * out.m * 2;
  s[0] = top / 127.0f;
  s[1] = s[0] * float(sum);
}

void quantize(const float* x, int64_t groups, Quantized out) {
  for (int64_t g = 0; g < groups; ++g) put(x + g * kGroup, g, out);
}

void rms_quantize(const float* x, const float* weight, float eps, int64_t groups, Quantized out) {
  double squares = 0;
  for (int64_t i = 0; i < groups * kGroup; ++i) squares += double(x[i]) * x[i];
  const float r = 1.0f / std::sqrt(float(squares / double(groups * kGroup)) + eps);
  for (int64_t g = 0; g < groups; ++g) {
    float v[kGroup];
    for (int i = 0; i < kGroup; ++i) v[i] = weight[g * kGroup + i] * (x[g * kGroup + i] * r);
    put(v, g, out);
  }
}

void silu_mul_quantize(const float* gate, const float* up, int64_t groups, Quantized out) {
  for (int64_t g = 0; g < groups; ++g) {
    float v[kGroup];
    for (int i = 0; i < kGroup; ++i) {
      const float t = gate[g * kGroup + i];
      v[i] = t / (1.0f + std::exp(-t)) * up[g * kGroup + i];
    }
    put(v, g, out);
  }
}

}  // namespace

const Kernels kScalar = {"scalar", gemm<4>, gemm<7>, quantize, rms_quantize, silu_mul_quantize};

}  // namespace kvorum
