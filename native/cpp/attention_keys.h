// How a part of a cache is read: keys as floats, turned to where they are seen, and turned round for the products. Included by
// attention_kernel.h, once per instruction set, over its `V`.

inline float number(float x) { return x; }

// A row of a cache from number `from` on, of which a few are read: for int8 those of one group.
template <class T>
struct Row {
  const T* x;
  Row() = default;
  Row(const T* row, int64_t, int64_t from) : x(row + from) {}
  V load(int64_t i) const { return V::load(x + i); }
  float one(int64_t i) const { return number(x[i]); }
};
template <>
struct Row<Eight> {
  const Eight* x;
  float scale;
  V scales;
  Row() = default;
  Row(const Eight* row, int64_t dim, int64_t from) : x(row + scale_bytes(dim) + from) {
    scale = reinterpret_cast<const float*>(row)[from / kShared];
    scales = V::set(scale);
  }
  V load(int64_t i) const { return V::load(x + i) * scales; }
  float one(int64_t i) const { return float(x[i].code) * scale; }
};

// Asks for a cache line of what the next chunk reads: memory works while the arithmetic does.
inline void ask(const char* line) { ask_for(line); }
constexpr int64_t kLine = 64;  // bytes

template <class T>
inline void copy(const T* x, int64_t begin, int64_t end, float* out) {
  for (; begin + V::n <= end; begin += V::n) V::load(x + begin).store(out + begin);
  for (; begin < end; ++begin) out[begin] = number(x[begin]);
}

// A row of `dim` numbers as floats.
template <class T>
inline void widen(const T* row, int64_t dim, float* out) {
  copy(row, 0, dim, out);
}
inline void widen(const Eight* row, int64_t dim, float* out) {
  for (int64_t from = 0; from < dim; from += kShared, out += kShared) {
    const Row<Eight> group(row, dim, from);
    const int64_t count = dim - from < kShared ? dim - from : kShared;
    int64_t i = 0;
    for (; i + V::n <= count; i += V::n) group.load(i).store(out + i);
    for (; i < count; ++i) out[i] = group.one(i);
  }
}

// x[k_dim], turned by the angles of cos, sin [half], to out, which may be x.
template <class T>
inline void turn_row(const T* x, const float* cos, const float* sin, const Layer& l, float* out) {
  const bool same = static_cast<const void*>(x) == out;
  if (l.style != kHalf) {
    if (!same) copy(x, 0, l.k_dim, out);
    turn(out, cos, sin, l.style, l.start, l.half);
    return;
  }
  if (!same) {
    copy(x, 0, l.start, out);
    copy(x, l.start + 2 * l.half, l.k_dim, out);
  }
  const T *low = x + l.start, *high = low + l.half;
  float *low_out = out + l.start, *high_out = low_out + l.half;
  int64_t i = 0;
  for (; i + V::n <= l.half; i += V::n) {
    const V a = V::load(low + i), b = V::load(high + i), c = V::load(cos + i), s = V::load(sin + i);
    (a * c - b * s).store(low_out + i);
    (b * c + a * s).store(high_out + i);
  }
  for (; i < l.half; ++i) {
    const float a = number(low[i]), b = number(high[i]);
    low_out[i] = a * cos[i] - b * sin[i];
    high_out[i] = b * cos[i] + a * sin[i];
  }
}

inline void turn_row(const Eight* x, const float* cos, const float* sin, const Layer& l, float* out) {
  widen(x, l.k_dim, out);
  turn_row<float>(out, cos, sin, l, out);
}

// V::tile rows [.., dim] as columns j, j + 1, ... of k [dim][kChunk].
inline void tile_columns(const float* rows, int64_t dim, float* k, int64_t j) {
  int64_t d = 0;
  for (; d + V::tile <= dim; d += V::tile) V::transpose(rows + d, dim, k + d * kChunk + j, kChunk);
  for (; d < dim; ++d)
    for (int64_t i = 0; i < V::tile; ++i) k[d * kChunk + j + i] = rows[i * dim + d];
}

// V::tile rows as floats side by side: those of `slots` (null: from `rows` on), as they lie or by way of `room`.
inline const float* tile_rows(const float* rows, const int64_t* slots, int64_t dim, float* room) {
  if (!slots) return rows;
  bool adjacent = true;
  for (int64_t i = 1; i < V::tile; ++i) adjacent = adjacent && slots[i] == slots[0] + i;
  if (adjacent) return rows + slots[0] * dim;
  for (int64_t i = 0; i < V::tile; ++i) copy(rows + slots[i] * dim, 0, dim, room + i * dim);
  return room;
}

inline const float* tile_rows(const Half* rows, const int64_t* slots, int64_t dim, float* room) {
  if (!slots) copy(rows, 0, V::tile * dim, room);
  else
    for (int64_t i = 0; i < V::tile; ++i) copy(rows + slots[i] * dim, 0, dim, room + i * dim);
  return room;
}

// `count` rows [.., dim], those at slots or the first ones, as columns of k [dim][kChunk], with zeros up to `padded`.
template <class T>
inline void columns(const T* rows, const int64_t* slots, int64_t count, int64_t padded, int64_t dim, float* k, float* room) {
  int64_t j = 0;
  for (; j + V::tile <= count; j += V::tile)
    tile_columns(tile_rows(slots ? rows : rows + j * dim, slots ? slots + j : nullptr, dim, room), dim, k, j);
  for (; j < padded; ++j)
    for (int64_t d = 0; d < dim; ++d) k[d * kChunk + j] = j < count ? number(rows[(slots ? slots[j] : j) * dim + d]) : 0;
}

// Asks for all lines of a row of `dim` numbers.
template <class T>
inline void row_lines(const T* x, int64_t dim) {
  const char* bytes = reinterpret_cast<const char*>(x);
  for (int64_t i = 0; i < row_items<T>(dim) * int64_t(sizeof(T)); i += kLine) ask(bytes + i);
}

// A layer's keys and values of one head.
template <class T>
inline const T* keys_of(const Layer& l, int64_t head) {
  return static_cast<const T*>(l.keys) + head * l.slots * row_items<T>(l.k_dim);
}
template <class T>
inline const T* values_of(const Layer& l, int64_t head) {
  return static_cast<const T*>(l.values) + head * l.slots * row_items<T>(l.v_dim);
}

// Asks for the keys and values of `count` scattered rows.
template <class T>
inline void ask_rows(const Tile& t, const int64_t* slots, int64_t count) {
  const Layer& l = *t.layer;
  for (int64_t j = 0; j < count; ++j) {
    row_lines(keys_of<T>(l, t.kv_head) + slots[j] * row_items<T>(l.k_dim), l.k_dim);
    row_lines(values_of<T>(l, t.kv_head) + slots[j] * row_items<T>(l.v_dim), l.v_dim);
  }
}

// The keys [0, count) of a segment from `at` on as rows of floats, turned to where they are seen.
template <class T>
inline void turned_rows(const Tile& t, const Segment& s, int64_t at, int64_t count, const T* keys, const int64_t* slots,
                        float* out) {
  const Layer& l = *t.layer;
  const int64_t row = row_items<T>(l.k_dim);
  for (int64_t j = 0; j < count; ++j, out += l.k_dim) {
    const int64_t angle = t.shift_row[s.shift + at + j] * l.half;
    turn_row(keys + (slots ? slots[j] : j) * row, t.shift_cos + angle, t.shift_sin + angle, l, out);
  }
}

// keys[0..count) of a segment from `at` on, turned round into k [k_dim][kChunk]. `room` holds kChunk keys.
template <class T>
inline void gather(const Tile& t, const Segment& s, int64_t at, int64_t count, int64_t padded, const T* keys,
                   const int64_t* slots, float* k, float* room) {
  const int64_t dim = t.layer->k_dim;
  if (s.shift < 0) return columns(keys, slots, count, padded, dim, k, room);
  turned_rows(t, s, at, count, keys, slots, room);
  columns(room, nullptr, count, padded, dim, k, nullptr);
}

// Rows in int8, those at slots or the first ones, as rows of floats.
inline void widen_rows(const Eight* rows, const int64_t* slots, int64_t count, int64_t dim, float* out) {
  for (int64_t j = 0; j < count; ++j, out += dim) widen(rows + (slots ? slots[j] : j) * row_items<Eight>(dim), dim, out);
}
