// Float to half with F16C, for the files that may use it. Included after <immintrin.h>, whatever else a file's instructions are.
#pragma once
#include "attention.h"

namespace kvorum {
namespace {

inline void narrow(const float* x, int64_t n, Half* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < n; ++i)
    out[i].bits = uint16_t(_mm_extract_epi16(_mm_cvtps_ph(_mm_set_ss(x[i]), _MM_FROUND_TO_NEAREST_INT), 0));
}

}  // namespace
}  // namespace kvorum
