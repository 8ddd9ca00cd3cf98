// The table of kernels that each instruction set fills in. Layouts: ../README.md.
#pragma once
#include <cstdint>

namespace kvorum {

constexpr int64_t kRows = 16;   // output rows of a block
constexpr int64_t kGroup = 32;  // inputs of a group
constexpr int64_t kHead = 64;   // bytes of a block's scales and mins in a group
constexpr int64_t kBytes4 = kHead + kRows * kGroup / 2;
constexpr int64_t kBytes7 = kHead + kRows * kGroup;

// y[m, n] = mult[n] * sum_k w[n, k] x[m, k] (+ bias[n]) (+ y[m, n] if add), for the rows of blocks begin..end.
struct Gemm {
  const uint8_t* w;
  int64_t groups;
  int64_t n;
  int64_t m;
  const int8_t* q;  // [groups, m, 32]
  const float* s;   // [groups, m, 2]
  float* y;         // [m, n], rows ldy apart
  int64_t ldy;
  const float* mult;  // [n]
  const float* bias;  // [n] or null
  bool add;
};

// Where one row of quantised inputs goes: group g at q + g * m * 32 and s + g * m * 2.
struct Quantized {
  int8_t* q;
  float* s;
  int64_t m;
};

struct Kernels {
  const char* name;
  void (*gemm4)(const Gemm&, int64_t begin, int64_t end);
  void (*gemm7)(const Gemm&, int64_t begin, int64_t end);
  void (*quantize)(const float* x, int64_t groups, Quantized out);
  void (*rms_quantize)(const float* x, const float* weight, float eps, int64_t groups, Quantized out);
  void (*silu_mul_quantize)(const float* gate, const float* up, int64_t groups, Quantized out);
};

extern const Kernels kScalar;
#ifdef KVORUM_X86
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#endif
#ifdef KVORUM_ARM
extern const Kernels kNeon;
extern const Kernels kNeonDotprod;
extern const Kernels kNeonI8mm;
#endif

}  // namespace kvorum
