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

// A tap on a tick: which share of its attention each looked-at token gives to whose keys. The arrays belong to Python.
struct Tap {
  const int32_t* group;  // [slots of the pool]: who wrote what is there
  int64_t groups;
  const int64_t* line;  // [tokens]: the token's line of `out`, or -1
  int64_t lines;
  float* out;  // [layers, lines, groups]: means over heads; what a sink takes is nobody's
};

// The layer-independent part of a tick. The arrays belong to Python, which keeps them as long as this object.
class Plan {
 public:
  // table: int64 [segments, 7] of slots' address or 0, first slot, first position, length, offset into shift_row
  // or -1, begin and end of its queries.
  Plan(const int64_t* table, int64_t segments, const int64_t* query_tokens, const int64_t* deltas, const int64_t* slots,
       int64_t tokens);

  int64_t tokens() const { return tokens_; }

  // Look at it with `tap`, in all layers from now on.
  void watch(const Tap& tap);

  // Let the tap write to `out` from now on: for layers that are called one by one, each as number 0.
  void aim(float* out) { tap_.out = out; }

  // Make room for `layer`. Before the team starts.
  void prepare(const Layer& layer);

  // Steps: write and attend. Afterwards `merge` gives any token's result.
  void attend(Team& team, const Layer& layer, const Rotation& turns, const Inputs& in);

  // out[q_heads, v_dim] of one token.
  void merge(const Layer& layer, int64_t token, float* out) const;

  // Write one token's shares in layer number `at` to where the tap wants them; nothing without a tap.
  void share(const Layer& layer, int64_t at, int64_t token) const;

 private:
  void cut();
  void write(const Layer& layer, const Rotation& turns, const Inputs& in, int64_t token) const;
  void part(const Layer& layer, const Rotation& turns, const Inputs& in, int64_t part, int64_t head);
  Look look(const Layer& layer, int64_t part);

  const int64_t* query_tokens_;
  const int64_t* deltas_;
  const int64_t* slots_;
  int64_t tokens_;
  std::vector<Segment> segments_;
  std::vector<Part> parts_;
  std::vector<int64_t> entries_, begins_;  // of token t: entries_[begins_[t]..begins_[t + 1]), in the order of its view
  std::vector<float> results_;             // [entries, q_heads, maximum and sum and v_dim]
  Tap tap_{};
  std::vector<Piece> pieces_;      // of part p: pieces_[cuts_[p]..cuts_[p + 1])
  std::vector<int64_t> cuts_, parts_of_, sums_at_;  // the part of each entry; where a part's sums begin, over q_heads
  std::vector<float> sums_;
};

void use_attention(const char* path);

}  // namespace kvorum
