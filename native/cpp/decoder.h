// A whole tick of a model of the Llama shape over packed weights: one start of the team for all layers.
//
// Its twin is kvorum/models/runners/lean.py, operation for operation.
#pragma once
#include <cstdint>
#include <vector>

#include "matrix.h"
#include "plan.h"

namespace kvorum {

struct DecoderLayer {
  const float* norm;
  Matrix qkv;
  const float *q_norm, *k_norm;  // [dim] or null
  Matrix out;
  const float* mlp_norm;
  Matrix gate_up, down;
};

class Decoder {
 public:
  Decoder(int64_t q_heads, int64_t kv_heads, int64_t dim, float eps, const float* norm, const Matrix& head)
      : q_heads_(q_heads), kv_heads_(kv_heads), dim_(dim), eps_(eps), norm_(norm), head_(head) {}

  int64_t q_heads() const { return q_heads_; }

  void add(DecoderLayer layer) { layers_.push_back(std::move(layer)); }

  // x [tokens, hidden] is overwritten; logits [count, vocab] and, if not null, hidden [count, hidden] (after the last norm)
  // are of the tokens `index`.
  void forward(Plan& plan, const std::vector<const Layer*>& attention, const std::vector<const Rotation*>& turns, float* x,
               const int64_t* index, int64_t count, float* logits, float* hidden, int threads);

 private:
  Rows rows(int64_t m) { return {codes_.data(), scales_.data(), m}; }
  void room(int64_t tokens);

  int64_t q_heads_, kv_heads_, dim_;
  float eps_;
  const float* norm_;
  Matrix head_;
  std::vector<DecoderLayer> layers_;
  std::vector<int8_t> codes_;
  std::vector<float> scales_, wide_, attended_;
};

}  // namespace kvorum
