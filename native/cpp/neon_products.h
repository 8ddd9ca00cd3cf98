// The products of packed weights, over the `Dots<MT>` that the including file defines: `d[m][r]`, the sums of one group of MT
// input rows with output rows 4r..4r+3, filled in by group4 and group7. Included once per instruction set, inside an anonymous
// namespace.
//
// Sums of products of codes are whole numbers, the same whichever instructions make them; and each row's floats are added up group
// after group. So a row's result does not depend on how many rows go through the weights together.

constexpr int64_t kTile = 32;  // input rows that go through a weight block together; their sums stay in the first cache

inline float32x4_t halves(const uint8_t* p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }

void store(const Gemm& a, int64_t b, int64_t m, const float32x4_t* acc) {
  const int64_t n = b * kRows;
  float* y = a.y + m * a.ldy + n;
  if (n + kRows <= a.n) {
    for (int r = 0; r < 4; ++r) {
      float32x4_t v = vmulq_f32(acc[r], vld1q_f32(a.mult + n + 4 * r));
      if (a.bias) v = vaddq_f32(v, vld1q_f32(a.bias + n + 4 * r));
      if (a.add) v = vaddq_f32(vld1q_f32(y + 4 * r), v);
      vst1q_f32(y + 4 * r, v);
    }
    return;
  }
  float v[kRows];
  for (int r = 0; r < 4; ++r) vst1q_f32(v + 4 * r, acc[r]);
  for (int64_t r = 0; n + r < a.n; ++r) {
    float t = v[r] * a.mult[n + r];
    if (a.bias) t += a.bias[n + r];
    y[r] = a.add ? y[r] + t : t;
  }
}

// As in avx2.cpp.
template <int BITS>
inline void ahead(const uint8_t* p) {
  constexpr int64_t bytes = BITS == 4 ? kBytes4 : kBytes7;
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + 8 * kBytes4 + i);
}

// One group of a block with MT input rows, at most four, whose sums fit the registers.
template <int BITS, int MT>
inline void group(const uint8_t* p, const int8_t* x, const float* s, float32x4_t (*acc)[4]) {
  Dots<MT> dots;
  if (BITS == 4)
    dots.group4(p + kHead, x);
  else
    dots.group7(p + kHead, x);
  for (int r = 0; r < 4; ++r) {
    const float32x4_t scale = halves(p + 8 * r), min = halves(p + 32 + 8 * r);
    for (int m = 0; m < MT; ++m) {
      acc[m][r] = vfmaq_f32(acc[m][r], vcvtq_f32_s32(dots.d[m][r]), vmulq_n_f32(scale, s[2 * m]));
      acc[m][r] = vfmaq_n_f32(acc[m][r], min, s[2 * m + 1]);
    }
  }
}

// MT input rows, known when compiled: sums stay in registers, at least some of them.
template <int BITS, int MT>
void few(const Gemm& a, int64_t b, int64_t m0) {
  constexpr int64_t bytes = BITS == 4 ? kBytes4 : kBytes7;
  const uint8_t* p = a.w + b * a.groups * bytes;
  float32x4_t acc[MT][4];
  for (int m = 0; m < MT; ++m)
    for (int r = 0; r < 4; ++r) acc[m][r] = vdupq_n_f32(0);
  for (int64_t g = 0; g < a.groups; ++g, p += bytes) {
    ahead<BITS>(p);
    group<BITS, MT>(p, a.q + (g * a.m + m0) * kGroup, a.s + (g * a.m + m0) * 2, acc);
  }
  for (int m = 0; m < MT; ++m) store(a, b, m0 + m, acc[m]);
}

// Up to kTile input rows: each group of weights goes through them by fours, and is in the first cache after the first.
template <int BITS>
void many(const Gemm& a, int64_t b, int64_t m0, int64_t mt) {
  constexpr int64_t bytes = BITS == 4 ? kBytes4 : kBytes7;
  const uint8_t* p = a.w + b * a.groups * bytes;
  float32x4_t acc[kTile][4];
  for (int64_t m = 0; m < mt; ++m)
    for (int r = 0; r < 4; ++r) acc[m][r] = vdupq_n_f32(0);
  for (int64_t g = 0; g < a.groups; ++g, p += bytes) {
    const int8_t* x = a.q + (g * a.m + m0) * kGroup;
    const float* s = a.s + (g * a.m + m0) * 2;
    ahead<BITS>(p);
    int64_t m = 0;
    for (; m + 4 <= mt; m += 4) group<BITS, 4>(p, x + m * kGroup, s + 2 * m, acc + m);
    switch (mt - m) {
      case 3: group<BITS, 3>(p, x + m * kGroup, s + 2 * m, acc + m); break;
      case 2: group<BITS, 2>(p, x + m * kGroup, s + 2 * m, acc + m); break;
      case 1: group<BITS, 1>(p, x + m * kGroup, s + 2 * m, acc + m); break;
    }
  }
  for (int64_t m = 0; m < mt; ++m) store(a, b, m0 + m, acc[m]);
}

// Four rows and their sums are more than the registers hold: they go the way of many, which takes fewer instructions.
template <int BITS>
void gemm(const Gemm& a, int64_t begin, int64_t end) {
  for (int64_t b = begin; b < end; ++b) {
    for (int64_t m0 = 0; m0 < a.m; m0 += kTile) {
      const int64_t mt = a.m - m0 < kTile ? a.m - m0 : kTile;
      switch (mt) {
        case 1: few<BITS, 1>(a, b, m0); break;
        case 2: few<BITS, 2>(a, b, m0); break;
        case 3: few<BITS, 3>(a, b, m0); break;
        default: many<BITS>(a, b, m0, mt);
      }
    }
  }
}
