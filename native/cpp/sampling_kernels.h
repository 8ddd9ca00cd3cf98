// The passes over a row of logits that each instruction set has its own of.
#pragma once
#include <cstdint>

namespace kvorum {

constexpr int64_t kSum = 256;  // weights that are summed in float before their sums are added up in double

// A row is read by one thread, always in the same order.
struct SamplingKernels {
  // The largest of x[n]; NaN if any is.
  float (*top)(const float* x, int64_t n);
  // weights[i] = e^((x[i] - top) / divisor), 0 below e^-87; sums[i]: of weights i * kSum on.
  void (*weigh)(const float* x, int64_t n, float top, float divisor, float* weights, float* sums);
};

extern const SamplingKernels kSamplingScalar;
#ifdef KVORUM_X86
extern const SamplingKernels kSamplingAvx2;
#endif
#ifdef KVORUM_ARM
extern const SamplingKernels kSamplingNeon;
#endif

}  // namespace kvorum
