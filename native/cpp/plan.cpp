#include "plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace kvorum {
namespace {

constexpr float kLowest = -3.0e38f;
constexpr int64_t kLeastKeys = 128;  // of a part: fewer are done before another thread has begun
constexpr int64_t kPieces = 8;       // a thread, if there are keys enough: then a slow core holds up little

const AttentionKernels* kernels = &kAttentionScalar;

}  // namespace

void use_attention(const char* path) {
  kernels = &kAttentionScalar;
#ifdef KVORUM_X86
  if (!std::strcmp(path, "avx2")) kernels = &kAttentionAvx2;
  if (!std::strcmp(path, "avx512vnni")) kernels = &kAttentionAvx512;
#else
  (void)path;
#endif
}

Plan::Plan(const int64_t* table, int64_t segments, const int64_t* query_tokens, const int64_t* deltas,
           const int64_t* slots, int64_t tokens)
    : query_tokens_(query_tokens), deltas_(deltas), slots_(slots), tokens_(tokens) {
  for (int64_t i = 0; i < segments; ++i, table += 7) {
    segments_.push_back({reinterpret_cast<const int64_t*>(table[0]), table[1], table[2], table[3], table[4], table[5],
                         table[6]});
    keys_ += table[3];
  }
}

int64_t Plan::splits(const Layer& l, int threads) const {
  if (threads == 1) return 1;
  const int64_t pieces = (tokens_ + kTokens - 1) / kTokens * l.kv_heads;
  const int64_t wanted = (threads * kPieces + pieces - 1) / pieces;
  return std::max<int64_t>(1, std::min(wanted, keys_ / kLeastKeys));
}

void Plan::prepare(const Layer& l, int threads) {
  const size_t floats = splits(l, threads) * tokens_ * l.q_heads * (l.v_dim + 2);
  if (parts_.size() < floats) parts_.resize(floats);
}

void Plan::attend(Team& team, const Layer& l, const Rotation& turns, const Inputs& in) {
  team.each(tokens_, 4, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) write(l, turns, in, n);
  });
  const int64_t tiles = (tokens_ + kTokens - 1) / kTokens, splits = this->splits(l, team.size());
  team.each(tiles * l.kv_heads * splits, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      part(l, turns, in, i % splits, splits, i / splits % l.kv_heads, i / splits / l.kv_heads);
  });
}

void Plan::write(const Layer& l, const Rotation& turns, const Inputs& in, int64_t n) const {
  for (int64_t h = 0; h < l.kv_heads; ++h) {
    float* key = l.keys + (h * l.slots + slots_[n]) * l.k_dim;
    std::memcpy(key, in.k + n * in.k_token + h * l.k_dim, l.k_dim * sizeof(float));
    turn(key, turns.new_cos + n * l.half, turns.new_sin + n * l.half, l.style, l.start, l.half);
    std::memcpy(l.values + (h * l.slots + slots_[n]) * l.v_dim, in.v + n * in.v_token + h * l.v_dim,
                l.v_dim * sizeof(float));
  }
}

void Plan::part(const Layer& l, const Rotation& turns, const Inputs& in, int64_t split, int64_t splits, int64_t head,
                int64_t tile) {
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
                   {query_tokens_, deltas_, turns.query_cos, turns.query_sin}, turns.shift_cos, turns.shift_sin, in.q,
                   in.q_token, head, begin, end, keys_ * split / splits, keys_ * (split + 1) / splits, max, sum, acc,
                   scratch.data()});
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = (begin + r / group) * l.q_heads + head * group + r % group;
    float* to = parts_.data() + (split * tokens_ * l.q_heads + row) * (l.v_dim + 2);
    to[0] = max[r];
    to[1] = sum[r];
    std::memcpy(to + 2, acc + r * l.v_dim, l.v_dim * sizeof(float));
  }
}

void Plan::merge(const Layer& l, int64_t token, int threads, float* out) const {
  const int64_t width = l.v_dim + 2, splits = this->splits(l, threads);
  for (int64_t row = token * l.q_heads; row < (token + 1) * l.q_heads; ++row, out += l.v_dim) {
    float max = kLowest, sum = 0;
    for (int64_t s = 0; s < splits; ++s) max = std::max(max, parts_[(s * tokens_ * l.q_heads + row) * width]);
    std::fill(out, out + l.v_dim, 0.0f);
    for (int64_t s = 0; s < splits; ++s) {
      const float* from = parts_.data() + (s * tokens_ * l.q_heads + row) * width;
      if (from[1] == 0) continue;
      const float share = std::exp(from[0] - max);
      sum += share * from[1];
      for (int64_t d = 0; d < l.v_dim; ++d) out[d] += share * from[2 + d];
    }
    const float by = sum > 0 ? 1 / sum : 0;
    for (int64_t d = 0; d < l.v_dim; ++d) out[d] *= by;
  }
}

}  // namespace kvorum
