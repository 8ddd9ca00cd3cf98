// Packed matrices and quantised rows, as steps of a team.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "team.h"

namespace kvorum {

extern const Kernels* current;  // of the path in use

// M rows of K inputs, quantised: codes [K/32, M, 32] and scales [K/32, M, 2].
struct Rows {
  int8_t* codes;
  float* scales;
  int64_t m;

  Quantized row(int64_t i) const { return {codes + i * kGroup, scales + i * 2, m}; }
};

// Matrices with the same inputs, one under the other: q, k and v, or gate and up, go through one step.
class Matrix {
 public:
  explicit Matrix(int64_t k) : k_(k) {}

  int64_t inputs() const { return k_; }
  int64_t outputs() const { return n_; }

  void add(int bits, const uint8_t* w, int64_t n, const float* mult, const float* bias) {
    parts_.push_back({bits, w, n, mult, bias, n_, blocks_});
    n_ += n;
    blocks_ += (n + kRows - 1) / kRows;
  }

  // y[m, ldy] from x; added to what y holds if `add`.
  void forward(Team& team, const Rows& x, float* y, int64_t ldy, bool add) const {
    // Pieces small enough that a slow core does not hold up the rest, large enough that claiming them costs nothing.
    const int64_t grain = std::max<int64_t>(1, blocks_ / (int64_t(team.size()) * 8));
    team.each(blocks_, grain, [&](int64_t begin, int64_t end) {
      for (const Part& p : parts_) {
        const int64_t blocks = (p.n + kRows - 1) / kRows;
        const int64_t b = std::max<int64_t>(begin - p.block, 0), e = std::min(end - p.block, blocks);
        if (b >= e) continue;
        const Gemm a{p.w, k_ / kGroup, p.n, x.m, x.codes, x.scales, y + p.row, ldy, p.mult, p.bias, add};
        (p.bits == 4 ? current->gemm4 : current->gemm7)(a, b, e);
      }
    });
  }

 private:
  struct Part {
    int bits;
    const uint8_t* w;
    int64_t n;
    const float* mult;
    const float* bias;
    int64_t row, block;  // of y, where this part begins
  };
  int64_t k_, n_ = 0, blocks_ = 0;
  std::vector<Part> parts_;
};

}  // namespace kvorum
