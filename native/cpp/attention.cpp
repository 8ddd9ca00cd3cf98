// One layer's attention of a tick: store the new keys and values, attend tile by tile, merge the tiles' parts.
#include "attention.h"

#include <nanobind/nanobind.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "bind.h"
#include "parallel.h"

namespace nb = nanobind;

namespace kvorum {
namespace {

constexpr float kLowest = -3.0e38f;
constexpr int64_t kLeastKeys = 256;  // of a part: fewer are done before another thread would have begun

const AttentionKernels* kernels = &kAttentionScalar;

// The addresses of cosines and sines [n, half] for the queries, the new tokens' indices, and the keys that are turned.
struct Rotation {
  const float *query_cos, *query_sin, *new_cos, *new_sin, *shift_cos, *shift_sin;
};

// The layer-independent part of a tick. The arrays belong to Python, which keeps them as long as this object.
class Plan {
 public:
  // table: int64 [segments, 7] of slots' address or 0, first slot, first position, length, offset into the shift tables
  // or -1, begin and end of its queries.
  Plan(uintptr_t table, int64_t segments, uintptr_t query_tokens, uintptr_t deltas, uintptr_t slots, int64_t tokens)
      : query_tokens_(at<const int64_t>(query_tokens)),
        deltas_(at<const int64_t>(deltas)),
        slots_(at<const int64_t>(slots)),
        tokens_(tokens) {
    const int64_t* row = at<const int64_t>(table);
    for (int64_t i = 0; i < segments; ++i, row += 7) {
      segments_.push_back({at<const int64_t>(row[0]), row[1], row[2], row[3], nullptr, nullptr, row[5], row[6]});
      shifts_.push_back(row[4]);
      keys_ += row[3];
    }
  }

  void attend(const Layer& layer, const Rotation& turns, uintptr_t q, int64_t q_token, uintptr_t k, int64_t k_token,
              uintptr_t v, int64_t v_token, uintptr_t out, int threads) {
    nb::gil_scoped_release free;
    write(layer, turns, at<const float>(k), k_token, at<const float>(v), v_token, threads);
    for (size_t i = 0; i < segments_.size(); ++i)
      if (shifts_[i] >= 0) {
        segments_[i].shift_cos = turns.shift_cos + shifts_[i] * layer.half;
        segments_[i].shift_sin = turns.shift_sin + shifts_[i] * layer.half;
      }
    const int64_t tiles = (tokens_ + kTokens - 1) / kTokens;
    const int64_t wanted = (threads * 4 + tiles * layer.kv_heads - 1) / (tiles * layer.kv_heads);
    const int64_t splits = threads == 1 ? 1 : std::max<int64_t>(1, std::min(wanted, keys_ / kLeastKeys));
    const int64_t rows = tokens_ * layer.q_heads;
    const int64_t width = layer.v_dim + 2;
    parts_.resize(splits * rows * width);
    parallel_for(tiles * layer.kv_heads * splits, 1, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        part(layer, turns, at<const float>(q), q_token, i % splits, splits, i / splits % layer.kv_heads,
             i / splits / layer.kv_heads);
    });
    parallel_for(rows, std::max<int64_t>(1, 16384 / (splits * width)), threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) merge(layer, i, rows, splits, at<float>(out));
    });
  }

 private:
  void write(const Layer& l, const Rotation& turns, const float* k, int64_t k_token, const float* v, int64_t v_token,
             int threads) const {
    parallel_for(tokens_, 32, threads, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        for (int64_t h = 0; h < l.kv_heads; ++h) {
          float* key = l.keys + (h * l.slots + slots_[n]) * l.k_dim;
          std::memcpy(key, k + n * k_token + h * l.k_dim, l.k_dim * sizeof(float));
          turn(key, turns.new_cos + n * l.half, turns.new_sin + n * l.half, l.style, l.start, l.half);
          std::memcpy(l.values + (h * l.slots + slots_[n]) * l.v_dim, v + n * v_token + h * l.v_dim,
                      l.v_dim * sizeof(float));
        }
    });
  }

  void part(const Layer& l, const Rotation& turns, const float* q, int64_t q_token, int64_t split, int64_t splits,
            int64_t head, int64_t tile) {
    static thread_local std::vector<float> scratch, state;
    const int64_t group = l.q_heads / l.kv_heads;
    const int64_t begin = tile * kTokens, end = std::min(begin + kTokens, tokens_), rows = (end - begin) * group;
    scratch.resize(scratch_floats(l, rows));
    state.assign(rows * (l.v_dim + 2), 0.0f);
    float *max = state.data(), *sum = max + rows, *acc = sum + rows;
    for (int64_t r = 0; r < rows; ++r) {
      max[r] = kLowest;
      if (l.sinks && split == 0) {
        max[r] = l.sinks[head * group + r % group];
        sum[r] = 1;
      }
    }
    kernels->attend({&l, segments_.data(), static_cast<int64_t>(segments_.size()),
                     {query_tokens_, deltas_, turns.query_cos, turns.query_sin}, q, q_token, head, begin, end,
                     keys_ * split / splits, keys_ * (split + 1) / splits, max, sum, acc, scratch.data()});
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = (begin + r / group) * l.q_heads + head * group + r % group;
      float* to = parts_.data() + (split * tokens_ * l.q_heads + row) * (l.v_dim + 2);
      to[0] = max[r];
      to[1] = sum[r];
      std::memcpy(to + 2, acc + r * l.v_dim, l.v_dim * sizeof(float));
    }
  }

  void merge(const Layer& l, int64_t row, int64_t rows, int64_t splits, float* out) const {
    const int64_t width = l.v_dim + 2;
    float max = kLowest, sum = 0;
    for (int64_t s = 0; s < splits; ++s) max = std::max(max, parts_[(s * rows + row) * width]);
    float* to = out + row * l.v_dim;
    std::fill(to, to + l.v_dim, 0.0f);
    for (int64_t s = 0; s < splits; ++s) {
      const float* from = parts_.data() + (s * rows + row) * width;
      if (from[1] == 0) continue;
      const float share = std::exp(from[0] - max);
      sum += share * from[1];
      for (int64_t d = 0; d < l.v_dim; ++d) to[d] += share * from[2 + d];
    }
    const float by = sum > 0 ? 1 / sum : 0;
    for (int64_t d = 0; d < l.v_dim; ++d) to[d] *= by;
  }

  const int64_t* query_tokens_;
  const int64_t* deltas_;
  const int64_t* slots_;
  int64_t tokens_, keys_ = 0;
  std::vector<Segment> segments_;
  std::vector<int64_t> shifts_;
  std::vector<float> parts_;
};

}  // namespace

void use_attention(const char* name) {
  kernels = &kAttentionScalar;
#ifdef KVORUM_X86
  if (!std::strcmp(name, "avx2")) kernels = &kAttentionAvx2;
  if (!std::strcmp(name, "avx512vnni")) kernels = &kAttentionAvx512;
#endif
}

void bind_attention(nb::module_& m) {
  nb::class_<Layer>(m, "AttentionLayer")
      .def("__init__", [](Layer* self, uintptr_t keys, uintptr_t values, int64_t slots, int64_t q_heads,
                          int64_t kv_heads, int64_t k_dim, int64_t v_dim, int64_t style, int64_t start, int64_t half,
                          int64_t window, float softcap, float scale, uintptr_t sinks) {
        new (self) Layer{at<float>(keys), at<float>(values), slots, q_heads, kv_heads, k_dim, v_dim,
                         style,           start,             half,  window,  softcap,  scale, at<const float>(sinks)};
      });
  nb::class_<Rotation>(m, "Rotation")
      .def("__init__", [](Rotation* self, uintptr_t query_cos, uintptr_t query_sin, uintptr_t new_cos,
                          uintptr_t new_sin, uintptr_t shift_cos, uintptr_t shift_sin) {
        new (self) Rotation{at<const float>(query_cos), at<const float>(query_sin), at<const float>(new_cos),
                            at<const float>(new_sin),   at<const float>(shift_cos), at<const float>(shift_sin)};
      });
  nb::class_<Plan>(m, "AttentionPlan")
      .def(nb::init<uintptr_t, int64_t, uintptr_t, uintptr_t, uintptr_t, int64_t>())
      .def("attend", &Plan::attend);
}

}  // namespace kvorum
