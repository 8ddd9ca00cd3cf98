// The Python module: pointers and sizes in, nothing checked here. kvorum/models/quantize.py checks shapes and dtypes once and
// keeps the tensors alive; addresses as integers cost a tenth of an array protocol, and a tick makes hundreds of calls.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "bind.h"
#include "kernels.h"
#include "parallel.h"

namespace nb = nanobind;

namespace kvorum {
namespace {

const Kernels* const* all() {
  static const Kernels* table[4] = {};
  static const bool filled = [] {
    int n = 0;
#ifdef KVORUM_X86
    __builtin_cpu_init();
    const bool avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni"))
      table[n++] = &kAvx512;
    if (avx2) table[n++] = &kAvx2;
#endif
    table[n++] = &kScalar;
    return true;
  }();
  (void)filled;
  return table;
}

const Kernels* current = nullptr;

nb::list paths() {
  nb::list names;
  for (auto t = all(); *t; ++t) names.append((*t)->name);
  return names;
}

void use(const char* name) {
  for (auto t = all(); *t; ++t)
    if (!std::strcmp((*t)->name, name)) {
      current = *t;
      use_attention(name);
      return;
    }
  throw nb::value_error("this processor has no such path");
}

const char* path() { return current->name; }

// Matrices with the same inputs, one under the other: q, k and v, or gate and up, go through one parallel region.
class Matrix {
 public:
  explicit Matrix(int64_t k) : k_(k) {}

  void add(int bits, uintptr_t w, int64_t n, uintptr_t mult, uintptr_t bias) {
    parts_.push_back({bits, at<const uint8_t>(w), n, at<const float>(mult), at<const float>(bias), n_, blocks_});
    n_ += n;
    blocks_ += (n + kRows - 1) / kRows;
  }

  // y[m, ldy] from the inputs q, s of m rows; added to what y holds if `add`.
  void forward(uintptr_t q, uintptr_t s, int64_t m, uintptr_t y, int64_t ldy, bool add, int threads) const {
    nb::gil_scoped_release free;
    // Pieces small enough that a slow core does not hold up the rest, large enough that claiming them costs nothing.
    const int64_t grain = std::max<int64_t>(1, blocks_ / (int64_t(threads) * 8));
    parallel_for(blocks_, grain, threads, [&](int64_t begin, int64_t end) {
      for (const Part& p : parts_) {
        const int64_t blocks = (p.n + kRows - 1) / kRows;
        const int64_t b = std::max<int64_t>(begin - p.block, 0), e = std::min(end - p.block, blocks);
        if (b >= e) continue;
        const Gemm a{p.w, k_ / kGroup, p.n, m, at<const int8_t>(q), at<const float>(s), at<float>(y) + p.row, ldy,
                     p.mult, p.bias, add};
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

// Below this many values the calling thread is done before another would have started.
constexpr int64_t kAlone = 8192;

template <class F>
void rows(int64_t m, int64_t k, int threads, F&& f) {
  parallel_for(m, std::max<int64_t>(1, kAlone / 2 / k), m * k < kAlone ? 1 : threads, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) f(i);
  });
}

Quantized row(uintptr_t q, uintptr_t s, int64_t m, int64_t i) {
  return {at<int8_t>(q) + i * kGroup, at<float>(s) + i * 2, m};
}

void quantize(uintptr_t x, int64_t m, int64_t k, uintptr_t q, uintptr_t s, int threads) {
  nb::gil_scoped_release free;
  rows(m, k, threads,
       [&](int64_t i) { current->quantize(at<const float>(x) + i * k, k / kGroup, row(q, s, m, i)); });
}

void rms_quantize(uintptr_t x, uintptr_t weight, float eps, int64_t m, int64_t k, uintptr_t q, uintptr_t s,
                  int threads) {
  nb::gil_scoped_release free;
  rows(m, k, threads, [&](int64_t i) {
    current->rms_quantize(at<const float>(x) + i * k, at<const float>(weight), eps, k / kGroup, row(q, s, m, i));
  });
}

void silu_mul_quantize(uintptr_t gate_up, int64_t m, int64_t k, uintptr_t q, uintptr_t s, int threads) {
  nb::gil_scoped_release free;
  rows(m, k, threads, [&](int64_t i) {
    const float* gate = at<const float>(gate_up) + i * 2 * k;
    current->silu_mul_quantize(gate, gate + k, k / kGroup, row(q, s, m, i));
  });
}

}  // namespace
}  // namespace kvorum

NB_MODULE(_native, m) {
  using namespace kvorum;
  nb::set_leak_warnings(false);  // Python may end while models are alive
  use(all()[0]->name);
  bind_attention(m);
  m.def("paths", &paths);
  m.def("use", &use);
  m.def("path", &path);
  m.def("have_threads", &have_threads);
  nb::class_<Matrix>(m, "Matrix").def(nb::init<int64_t>()).def("add", &Matrix::add).def("forward", &Matrix::forward);
  m.def("quantize", &quantize);
  m.def("rms_quantize", &rms_quantize);
  m.def("silu_mul_quantize", &silu_mul_quantize);
}
