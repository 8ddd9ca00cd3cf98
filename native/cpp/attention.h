// Attention over a tick's plan (kvorum/attention/plan.py): keys and values in float32, float16 or int8, each read once per tile
// of tokens. All arithmetic is in float32.
#pragma once
#include <cstdint>

#include "portable.h"

namespace kvorum {

// Stored tokens that the same rows see in the same arrangement. Key j stands at frame position first + j.
struct Segment {
  const int64_t* slots;  // [length], or null: slot, slot + 1, ...
  int64_t slot;
  int64_t first;
  int64_t length;
  int64_t shift;  // where in shift_row its keys' turns to their frame positions begin; -1: they are there already
  int64_t begin, end;  // which of the plan's queries see it; their tokens ascend
};

// What the layers of a tick share. Query i is token queries[i], turned by deltas[i]; its distance to frame position f is
// deltas[i] - f.
struct Queries {
  const int64_t* token;
  const int64_t* delta;
  const float* cos;  // [queries, half]
  const float* sin;
};

enum Style : int64_t { kNone = 0, kHalf = 1, kInterleaved = 2 };

// A number of a cache in float16.
struct Half {
  uint16_t bits;
};

// A byte of a row in int8 (kvorum/kv/int8_rows.py): the float scales of its groups of kShared numbers, then the numbers.
struct Eight {
  int8_t code;
};
constexpr int64_t kShared = 32;
static inline int64_t scale_bytes(int64_t dim) { return 4 * ((dim + kShared - 1) / kShared); }

// What a row of `dim` numbers takes in a cache of T, in T.
template <class T>
inline int64_t row_items(int64_t dim) {
  return dim;
}
template <>
inline int64_t row_items<Eight>(int64_t dim) {
  return scale_bytes(dim) + (dim + 3) / 4 * 4;
}

enum Stored : int64_t { kFloat = 0, kFloat16 = 1, kInt8 = 2 };

struct Layer {
  void* keys;    // [kv_heads, slots, row of k_dim numbers]
  void* values;  // [kv_heads, slots, row of v_dim numbers]
  Stored stored;
  int64_t slots, q_heads, kv_heads, k_dim, v_dim;
  int64_t style, start, half;
  int64_t window;  // distances below it are seen; 0: all
  float softcap;   // 0: none
  float scale;
  const float* sinks;  // [q_heads] or null
};

// One part of a segment, with the queries of a tile that see it. A part begins at a multiple of kPart keys behind its segment's
// beginning, whatever else is in the tick: so a row's result does not depend, bit for bit, on the rows beside it.
struct Part {
  int64_t segment;
  int64_t begin, end;  // of the segment's keys
  int64_t from, to;    // of the plan's queries
  int64_t entry;       // where the results of its queries begin
};

// Keys of a part whose writer is counted as `group`, where a tap is on.
struct Piece {
  int64_t begin, end;  // of the segment's keys
  int64_t group;
};

// What a tap sees of a part: for each of its queries that is looked at (line[token] >= 0) and each head, the weights of each
// piece summed up, relative to the same maximum as the part's sum. It reads what is there anyway and changes nothing.
struct Look {
  const Piece* pieces;  // null: no tap
  int64_t count;
  const int64_t* line;  // [tokens]
  float* sums;          // [queries of the part, q_heads, count]
};

// Queries [token, head, k_dim] lie q_token apart, heads k_dim apart.
struct Tile {
  const Layer* layer;
  const Segment* segment;
  Part part;
  Queries queries;
  const int64_t* shift_row;  // [turned keys of all segments]: which row of the shift tables is a key's
  const float* shift_cos;    // [rows, half]
  const float* shift_sin;
  const float* q;
  int64_t q_token;
  int64_t kv_head;
  float* out;      // [entries, q_heads, maximum and sum and v_dim weighted values]
  float* scratch;  // scratch_floats(layer, rows)
  Look look;
};

constexpr int64_t kChunk = 64;   // keys that go through the rows together
constexpr int64_t kPart = 192;   // keys of a part: a piece of work that a thread takes, worth its own maximum and sum
constexpr int64_t kTokens = 32;  // tokens of a tile

static inline int64_t scratch_floats(const Layer& l, int64_t rows) {
  return kChunk * (l.k_dim + (l.k_dim > l.v_dim ? l.k_dim : l.v_dim)) + rows * (l.k_dim + kChunk) + 64;
}

struct AttentionKernels {
  void (*attend)(const Tile&);
  // x[n] rounded to the nearest.
  void (*narrow)(const float* x, int64_t n, Half* out);
  // out[v_dim] of one head of one token from its `count` entries, each at parts + entries[i] * stride: maximum, sum, values.
  // `sink` is null or one more score that takes part in the softmax. `scratch` holds count + 16 floats.
  void (*merge)(const float* parts, const int64_t* entries, int64_t count, int64_t stride, int64_t v_dim, const float* sink,
                float* scratch, float* out);
};

// Turn x[dim] by the angles of cos, sin [half].
static inline void turn(float* x, const float* cos, const float* sin, int64_t style, int64_t start, int64_t half) {
  x += start;
  if (style == kHalf) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[i], b = x[i + half];
      x[i] = a * cos[i] - b * sin[i];
      x[i + half] = b * cos[i] + a * sin[i];
    }
  } else if (style == kInterleaved) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cos[i] - b * sin[i];
      x[2 * i + 1] = b * cos[i] + a * sin[i];
    }
  }
}

extern const AttentionKernels kAttentionScalar;
#ifdef KVORUM_X86
extern const AttentionKernels kAttentionAvx2;
extern const AttentionKernels kAttentionAvx512;
#endif
#ifdef KVORUM_ARM
extern const AttentionKernels kAttentionNeon;
#endif

}  // namespace kvorum
