// The attention of one tile, over the vector type `V` that the including file defines: `V::n` floats with zero, load, store,
// set, +, -, *, fma(a, b, c) = a * b + c, max and exp, and transpose of `tile` rows of `tile` floats; load takes Half and Eight
// too (its codes), and `number` makes one Half a float. Included once per instruction set, inside an anonymous namespace.

constexpr float kLowest = -3.0e38f;

#include "attention_keys.h"
#include "attention_products.h"

// One row's scores to softmax weights; acc is scaled down where the maximum has risen.
inline void soften(float* s, int64_t keys, int64_t padded, float* max, float* sum, float* acc, int64_t dim) {
  for (int64_t j = keys; j < padded; ++j) s[j] = kLowest;
  V top = V::set(*max);
  for (int64_t j = 0; j < padded; j += V::n) top = V::max(top, V::load(s + j));
  const float high = top.top();
  if (high <= kLowest) {  // nothing seen yet: all keys are hidden
    for (int64_t j = 0; j < padded; ++j) s[j] = 0;
    return;
  }
  if (high > *max) {
    const float less = *max <= kLowest ? 0.0f : V::exp(V::set(*max - high)).first();
    *sum *= less;
    const V by = V::set(less);
    int64_t d = 0;
    for (; d + V::n <= dim; d += V::n) (V::load(acc + d) * by).store(acc + d);
    for (; d < dim; ++d) acc[d] *= less;
    *max = high;
  }
  V total = V::zero();
  const V minus = V::set(-high);
  for (int64_t j = 0; j < padded; j += V::n) {
    const V e = V::exp(V::load(s + j) + minus);
    e.store(s + j);
    total = total + e;
  }
  *sum += total.total();
}

inline void hide(float* s, int64_t keys, int64_t distance, int64_t window) {
  // key j is at distance - j; it is seen where 0 <= distance - j < window
  for (int64_t j = distance + 1 > 0 ? distance + 1 : 0; j < keys; ++j) s[j] = kLowest;
  if (window)
    for (int64_t j = 0; j <= distance - window && j < keys; ++j) s[j] = kLowest;
}

// What a part's next chunk reads, where its keys do not lie side by side: asked for with this chunk's rows, a few keys at a time.
template <class T>
struct Ahead {
  const Tile* tile;
  const int64_t* slots;
  int64_t keys, each, done;

  Ahead(const Tile& t, int64_t at, int64_t end, int64_t steps) : tile(&t), slots(nullptr), keys(0), each(1), done(0) {
    if (!t.segment->slots || at >= end) return;
    slots = t.segment->slots + at;
    keys = end - at < kChunk ? end - at : kChunk;
    each = (keys + steps - 1) / steps;
  }
  void step() {
    const Layer& l = *tile->layer;
    for (const int64_t stop = done + each < keys ? done + each : keys; done < stop; ++done) {
      row_lines(keys_of<T>(l, tile->kv_head) + slots[done] * row_items<T>(l.k_dim), l.k_dim);
      row_lines(values_of<T>(l, tile->kv_head) + slots[done] * row_items<T>(l.v_dim), l.v_dim);
    }
  }
};

// Adds a chunk's weights, those of the segment's keys from `at` on, to a query's sums; before, these are brought to the maximum
// that it has now.
inline void look(const Look& l, const float* weight, int64_t at, int64_t keys, float before, float max, float* sums) {
  if (max > before) {
    const float less = before <= kLowest ? 0.0f : V::exp(V::set(before - max)).first();
    for (int64_t i = 0; i < l.count; ++i) sums[i] *= less;
  }
  for (int64_t i = 0; i < l.count; ++i) {
    const int64_t begin = l.pieces[i].begin > at ? l.pieces[i].begin - at : 0;
    const int64_t end = l.pieces[i].end - at < keys ? l.pieces[i].end - at : keys;
    if (begin >= end) continue;
    int64_t j = begin;
    V total = V::zero();
    for (; j + V::n <= end; j += V::n) total = total + V::load(weight + j);
    float sum = total.total();
    for (; j < end; ++j) sum += weight[j];
    sums[i] += sum;
  }
}

template <class T>
inline void attend_over(const Tile& t) {
  const Layer& l = *t.layer;
  const Segment& seg = *t.segment;
  const Queries& all = t.queries;
  const int64_t group = l.q_heads / l.kv_heads, from = t.part.from, to = t.part.to, rows = (to - from) * group;
  const int64_t width = l.v_dim + 2;
  float* k = t.scratch;
  float* room = k + kChunk * l.k_dim;
  float* q = room + kChunk * (l.k_dim > l.v_dim ? l.k_dim : l.v_dim);
  float* s = q + rows * l.k_dim;
  float* out = t.out + (t.part.entry * l.q_heads + t.kv_head * group) * width;
  const auto state = [&](int64_t r) { return out + (r / group * l.q_heads + r % group) * width; };
  const auto seen = [&](int64_t r) -> float* {  // the tap's sums of a row, or null
    if (!t.look.pieces || t.look.line[all.token[from + r / group]] < 0) return nullptr;
    return t.look.sums + (r / group * l.q_heads + t.kv_head * group + r % group) * t.look.count;
  };
  int64_t near = all.delta[from], far = near;
  for (int64_t x = from; x < to; ++x) {
    const int64_t delta = all.delta[x];
    near = delta < near ? delta : near;
    far = delta > far ? delta : far;
    const float* source = t.q + all.token[x] * t.q_token + t.kv_head * group * l.k_dim;
    float* target = q + (x - from) * group * l.k_dim;
    for (int64_t d = 0; d < group * l.k_dim; ++d) target[d] = source[d] * l.scale;
    for (int64_t g = 0; g < group; ++g, target += l.k_dim)
      turn_row(target, all.cos + x * l.half, all.sin + x * l.half, l, target);
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* x = state(r);
    for (int64_t d = 0; d < width; ++d) x[d] = 0;
    *x = kLowest;
    if (float* sums = seen(r))
      for (int64_t i = 0; i < t.look.count; ++i) sums[i] = 0;
  }
  // Chunks that nobody sees are left out, whole ones only: a key has the same place in its chunk whoever else looks.
  int64_t begin = t.part.begin, end = t.part.end;
  while (l.window && begin < end && begin + kChunk + seg.first <= near - l.window + 1) begin += kChunk;
  if (far - seg.first + 1 < end) end = far - seg.first + 1;
  for (int64_t at = begin; at < end; at += kChunk) {
    const int64_t keys = end - at < kChunk ? end - at : kChunk;
    const int64_t padded = (keys + V::n - 1) / V::n * V::n;
    const int64_t* slots = seg.slots ? seg.slots + at : nullptr;
    const T* stored = keys_of<T>(l, t.kv_head) + (slots ? 0 : seg.slot + at) * row_items<T>(l.k_dim);
    const T* values = values_of<T>(l, t.kv_head) + (slots ? 0 : seg.slot + at) * row_items<T>(l.v_dim);
    if (slots && at == begin) ask_rows<T>(t, slots, keys);  // nobody has yet
    if constexpr (!kAsTheyLie<T>)
      gather(t, seg, at, keys, padded, stored, slots, k, room);
    else if (seg.shift >= 0)
      turned_rows(t, seg, at, keys, stored, slots, k);
    else if (rows > kRowsAtOnce)
      widen_rows(stored, slots, keys, l.k_dim, k);
    const char *next_keys = nullptr, *next_values = nullptr;
    if (!seg.slots && end - at > kChunk) {
      const int64_t next = seg.slot + at + kChunk;
      next_keys = reinterpret_cast<const char*>(keys_of<T>(l, t.kv_head) + next * row_items<T>(l.k_dim));
      next_values = reinterpret_cast<const char*>(values_of<T>(l, t.kv_head) + next * row_items<T>(l.v_dim));
    }
    Ahead<T> ahead(t, at + kChunk, end, 2 * ((rows + kRowsAtOnce - 1) / kRowsAtOnce));
    for (int64_t r = 0; r < rows; r += kRowsAtOnce, next_keys = nullptr) {
      ahead.step();
      at_once(rows - r, [&](auto count) {
        constexpr int R = decltype(count)::value;
        const float* x = q + r * l.k_dim;
        float* to = s + r * kChunk;
        if constexpr (!kAsTheyLie<T>)
          score_rows<T, R>(x, l.k_dim, k, l.k_dim, padded, to, next_keys);
        else if (seg.shift >= 0 || rows > kRowsAtOnce)
          dot_rows<float, R>(x, l.k_dim, k, nullptr, l.k_dim, keys, to, nullptr);
        else
          dot_rows<T, R>(x, l.k_dim, stored, slots, l.k_dim, keys, to, next_keys);
      });
    }
    const bool wide = kAsTheyLie<T> && rows > kRowsAtOnce;
    if constexpr (kAsTheyLie<T>)
      if (wide) widen_rows(values, slots, keys, l.v_dim, room);
    const bool partial = near - seg.first - at < keys - 1 || (l.window && far - seg.first - at >= l.window);
    for (int64_t r = 0; r < rows; r += kRowsAtOnce, next_values = nullptr) {
      const int64_t some = rows - r < kRowsAtOnce ? rows - r : kRowsAtOnce;
      float *lines = s + r * kChunk, *acc[kRowsAtOnce];
      for (int64_t i = 0; i < some; ++i) {
        float *line = lines + i * kChunk, *x = state(r + i);
        if (l.softcap != 0)
          for (int64_t j = 0; j < keys; ++j) line[j] = l.softcap * hyperbolic(line[j] / l.softcap);
        if (partial) hide(line, keys, all.delta[from + (r + i) / group] - seg.first - at, l.window);
        const float before = *x;
        acc[i] = x + 2;
        soften(line, keys, padded, x, x + 1, x + 2, l.v_dim);
        if (float* sums = seen(r + i)) look(t.look, line, at, keys, before, *x, sums);
      }
      ahead.step();
      at_once(some, [&](auto count) {
        constexpr int R = decltype(count)::value;
        if (wide)
          weigh_rows<float, R>(lines, room, nullptr, l.v_dim, keys, acc, nullptr);
        else
          weigh_rows<T, R>(lines, values, slots, l.v_dim, keys, acc, next_values);
      });
    }
  }
}

inline void attend(const Tile& t) {
  switch (t.layer->stored) {
    case kFloat16: return attend_over<Half>(t);
    case kInt8: return attend_over<Eight>(t);
    default: return attend_over<float>(t);
  }
}

inline void merge(const float* parts, const int64_t* entries, int64_t count, int64_t stride, int64_t v_dim,
                  const float* sink, float* scratch, float* out) {
  float max = sink ? *sink : kLowest;
  for (int64_t i = 0; i < count; ++i) {
    scratch[i] = parts[entries[i] * stride];
    max = scratch[i] > max ? scratch[i] : max;
  }
  for (int64_t i = count; i < count + V::n; ++i) scratch[i] = kLowest;
  const V minus = V::set(-max);
  for (int64_t i = 0; i < count; i += V::n) V::exp(V::load(scratch + i) + minus).store(scratch + i);
  float sum = sink ? V::exp(V::set(*sink - max)).first() : 0.0f;
  for (int64_t d = 0; d < v_dim; ++d) out[d] = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float* from = parts + entries[i] * stride;
    if (from[1] == 0) continue;  // it saw nothing
    sum += scratch[i] * from[1];
    const V share = V::set(scratch[i]);
    int64_t d = 0;
    for (; d + V::n <= v_dim; d += V::n) V::fma(share, V::load(from + 2 + d), V::load(out + d)).store(out + d);
    for (; d < v_dim; ++d) out[d] += scratch[i] * from[2 + d];
  }
  const float by = sum > 0 ? 1 / sum : 0;
  for (int64_t d = 0; d < v_dim; ++d) out[d] *= by;
}
