// The attention of a tick as steps of a team: store the new keys and values, attend tile by tile, merge the tiles' parts.
#pragma once
#include <cstdint>
#include <vector>

#include "attention.h"
#include "team.h"

namespace kvorum {

// Cosines and sines [n, half] for the queries, the new tokens' indices, and the shifts of keys that are turned, of which a key
// has row shift_row[key].
struct Rotation {
  const float *query_cos, *query_sin, *new_cos, *new_sin, *shift_cos, *shift_sin;
  const int64_t* shift_row;
};

// Queries, keys and values of the new tokens: the heads of a token side by side, tokens `*_token` floats apart.
struct Inputs {
  const float* q;
  int64_t q_token;
  const float* k;
  int64_t k_token;
  const float* v;
  int64_t v_token;
};

// The layer-independent part of a tick. The arrays belong to Python, which keeps them as long as this object.
class Plan {
 public:
  // table: int64 [segments, 7] of slots' address or 0, first slot, first position, length, offset into shift_row
  // or -1, begin and end of its queries.
  Plan(const int64_t* table, int64_t segments, const int64_t* query_tokens, const int64_t* deltas, const int64_t* slots,
       int64_t tokens);

  int64_t tokens() const { return tokens_; }

  // Make room for `layer`. Before the team starts.
  void prepare(const Layer& layer);

  // Steps: write and attend. Afterwards `merge` gives any token's result.
  void attend(Team& team, const Layer& layer, const Rotation& turns, const Inputs& in);

  // out[q_heads, v_dim] of one token.
  void merge(const Layer& layer, int64_t token, float* out) const;

 private:
  void cut();
  void write(const Layer& layer, const Rotation& turns, const Inputs& in, int64_t token) const;
  void part(const Layer& layer, const Rotation& turns, const Inputs& in, const Part& part, int64_t head);

  const int64_t* query_tokens_;
  const int64_t* deltas_;
  const int64_t* slots_;
  int64_t tokens_;
  std::vector<Segment> segments_;
  std::vector<Part> parts_;
  std::vector<int64_t> entries_, begins_;  // of token t: entries_[begins_[t]..begins_[t + 1]), in the order of its view
  std::vector<float> results_;             // [entries, q_heads, maximum and sum and v_dim]
};

void use_attention(const char* path);

}  // namespace kvorum
