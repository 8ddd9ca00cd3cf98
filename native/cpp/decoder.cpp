#include "decoder.h"

#include <algorithm>
#include <cmath>

namespace kvorum {
namespace {

// heads [count, dim] of one token: weight * x / sqrt(mean(x^2) + eps), head by head.
void norm_heads(float* x, int64_t count, int64_t dim, const float* weight, float eps) {
  for (; count > 0; --count, x += dim) {
    float lanes[8] = {};  // eight sums, which a compiler may keep in one register
    int64_t d = 0;
    for (; d + 8 <= dim; d += 8)
      for (int64_t i = 0; i < 8; ++i) lanes[i] += x[d + i] * x[d + i];
    float squares = 0;
    for (; d < dim; ++d) squares += x[d] * x[d];
    for (float lane : lanes) squares += lane;
    const float by = 1.0f / std::sqrt(squares / float(dim) + eps);
    for (d = 0; d < dim; ++d) x[d] = weight[d] * (x[d] * by);
  }
}

}  // namespace

void Decoder::room(int64_t tokens) {
  int64_t inputs = head_.inputs(), outputs = 0;
  for (const DecoderLayer& l : layers_) {
    inputs = std::max({inputs, l.out.inputs(), l.down.inputs()});
    outputs = std::max({outputs, l.qkv.outputs(), l.gate_up.outputs()});
  }
  codes_.resize(tokens * inputs);
  scales_.resize(tokens * inputs / kGroup * 2);
  wide_.resize(tokens * outputs);
  attended_.resize(tokens * q_heads_ * dim_);
}

void Decoder::forward(Plan& plan, const std::vector<const Layer*>& attention, const std::vector<const Rotation*>& turns,
                      float* x, const int64_t* index, int64_t count, float* logits, float* hidden, int threads) {
  const int64_t tokens = plan.tokens(), width = head_.inputs();
  room(std::max(tokens, count));
  for (const Layer* l : attention) plan.prepare(*l);
  together(threads, [&](Team& team) {
    const Kernels& kernel = *current;
    const auto each = [&](int64_t rows, auto&& row) {
      team.each(rows, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) row(i);
      });
    };
    const Rows in = rows(tokens), last = rows(count);
    float *wide = wide_.data(), *attended = attended_.data();
    for (size_t at = 0; at < layers_.size(); ++at) {
      const DecoderLayer& l = layers_[at];
      const Layer& a = *attention[at];
      const int64_t q = q_heads_ * dim_, kv = kv_heads_ * dim_, qkv = q + 2 * kv;
      each(tokens, [&](int64_t i) { kernel.rms_quantize(x + i * width, l.norm, eps_, width / kGroup, in.row(i)); });
      l.qkv.forward(team, in, wide, qkv, false);
      if (l.q_norm)
        each(tokens, [&](int64_t i) {
          norm_heads(wide + i * qkv, q_heads_, dim_, l.q_norm, eps_);
          norm_heads(wide + i * qkv + q, kv_heads_, dim_, l.k_norm, eps_);
        });
      plan.attend(team, a, *turns[at], {wide, qkv, wide + q, qkv, wide + q + kv, qkv});
      each(tokens, [&](int64_t i) {
        plan.merge(a, i, attended + i * q);
        plan.share(a, at, i);
        kernel.quantize(attended + i * q, q / kGroup, in.row(i));
      });
      l.out.forward(team, in, x, width, true);
      each(tokens, [&](int64_t i) { kernel.rms_quantize(x + i * width, l.mlp_norm, eps_, width / kGroup, in.row(i)); });
      const int64_t up = l.down.inputs();
      l.gate_up.forward(team, in, wide, 2 * up, false);
      each(tokens, [&](int64_t i) {
        kernel.silu_mul_quantize(wide + i * 2 * up, wide + i * 2 * up + up, up / kGroup, in.row(i));
      });
      l.down.forward(team, in, x, width, true);
    }
    each(count, [&](int64_t i) {
      const float* from = x + index[i] * width;
      kernel.rms_quantize(from, norm_, eps_, width / kGroup, last.row(i));
      if (!hidden) return;
      std::copy(from, from + width, hidden + i * width);
      norm_heads(hidden + i * width, 1, width, norm_, eps_);
    });
    head_.forward(team, last, logits, head_.outputs(), false);
  });
}

}  // namespace kvorum
