// The products of a part: queries with keys, and weights with values, a few rows at a time. Included by attention_kernel.h, once
// per instruction set, over its `V`.
//
// Keys in float32 and float16 are turned round to [dimension][key], so that a product of a query with V::n keys needs no sum
// across a register. Those in int8 are taken as they lie: turning them round as well would cost as much as the products.

// Registers that a step of R rows works on at a time, for sums that do not wait for each other and find room in 16 registers.
template <int R>
constexpr int kWide = R > 2 ? 2 : 4;

// The same where they are numbers of a cache of T: in int8 not more than share a scale.
template <class T, int R>
constexpr int kWideOf = kWide<R>;
template <int R>
constexpr int kWideOf<Eight, R> = kWide<R> * V::n > kShared ? kShared / V::n : kWide<R>;

// What C registers of a cache of T hold in it, in bytes: as much of the next chunk is asked for with each step.
template <class T, int C>
constexpr int64_t kStep = C * V::n * sizeof(T);

// Asks for the lines that begin in step i of those from `ahead` on.
template <class T, int C>
inline void ask_step(const char* ahead, int64_t i) {
  for (int64_t at = i * kStep<T, C>, end = at + kStep<T, C>; at < end; at += kLine)
    if (at % kLine == 0) ask(ahead + at);
}

// Scores of R rows with V::n * C keys: out[r][key] += q[r][d] * k[d][key]. Lines are asked for with each d, if `ahead`.
template <class T, int R, int C>
inline void scores(const float* q, int64_t ldq, const float* k, int64_t dim, float* out, const char* ahead) {
  V s[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) s[r][c] = V::zero();
  for (int64_t d = 0; d < dim; ++d, k += kChunk) {
    if (ahead) ask_step<T, C>(ahead, d);
    V key[C];
    for (int c = 0; c < C; ++c) key[c] = V::load(k + c * V::n);
    for (int r = 0; r < R; ++r) {
      const V x = V::set(q[r * ldq + d]);
      for (int c = 0; c < C; ++c) s[r][c] = V::fma(x, key[c], s[r][c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) s[r][c].store(out + r * kChunk + c * V::n);
}

template <class T, int R>
inline void score_rows(const float* q, int64_t ldq, const float* k, int64_t dim, int64_t keys, float* out,
                       const char* ahead) {
  constexpr int C = kWide<R>;
  int64_t j = 0;
  for (; j + C * V::n <= keys; j += C * V::n) {
    scores<T, R, C>(q, ldq, k + j, dim, out + j, ahead);
    if (ahead) ahead += dim * kStep<T, C>;
  }
  for (; j < keys; j += V::n) scores<T, R, 1>(q, ldq, k + j, dim, out + j, nullptr);
}

// Whether keys of a cache of T are taken as they lie.
template <class T>
constexpr bool kAsTheyLie = false;
template <>
constexpr bool kAsTheyLie<Eight> = true;

// Scores of R rows with P keys as they lie: out[r][key] = q[r] * key. Each is summed up in the same order, whichever rows and keys
// are taken together.
template <class T, int R, int P>
inline void dots(const float* q, int64_t ldq, const T* const* keys, int64_t dim, float* out) {
  V s[R][P];
  for (int r = 0; r < R; ++r)
    for (int p = 0; p < P; ++p) s[r][p] = V::zero();
  const int64_t whole = dim / V::n * V::n;
  for (int64_t from = 0; from < whole; from += kShared) {
    Row<T> group[P];
    for (int p = 0; p < P; ++p) group[p] = Row<T>(keys[p], dim, from);
    const int64_t count = whole - from < kShared ? whole - from : kShared;
    const float* x = q + from;
    for (int64_t i = 0; i < count; i += V::n) {
      V key[P];
      for (int p = 0; p < P; ++p) key[p] = group[p].load(i);
      for (int r = 0; r < R; ++r) {
        const V some = V::load(x + r * ldq + i);
        for (int p = 0; p < P; ++p) s[r][p] = V::fma(some, key[p], s[r][p]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int p = 0; p < P; ++p) out[r * kChunk + p] = s[r][p].total();
  for (int64_t d = whole; d < dim; ++d)
    for (int p = 0; p < P; ++p) {
      const float key = Row<T>(keys[p], dim, d).one(0);
      for (int r = 0; r < R; ++r) out[r * kChunk + p] += q[r * ldq + d] * key;
    }
}

// Of R rows with `count` keys: those at slots, or the first ones. Lines of the next chunk are asked for with them, if `ahead`.
template <class T, int R>
inline void dot_rows(const float* q, int64_t ldq, const T* keys, const int64_t* slots, int64_t dim, int64_t count, float* out,
                     const char* ahead) {
  constexpr int P = R > 3 ? 2 : 4;
  const int64_t row = row_items<T>(dim);
  const auto key = [&](int64_t j) { return keys + (slots ? slots[j] : j) * row; };
  int64_t j = 0;
  for (; j + P <= count; j += P) {
    if (ahead)
      for (int64_t at = 0; at < P * row * int64_t(sizeof(T)); at += kLine) ask(ahead + j * row * int64_t(sizeof(T)) + at);
    const T* some[P];
    for (int p = 0; p < P; ++p) some[p] = key(j + p);
    dots<T, R, P>(q, ldq, some, dim, out + j);
  }
  for (; j < count; ++j) {
    const T* one = key(j);
    dots<T, R, 1>(q, ldq, &one, dim, out + j);
  }
}

// acc[r][0..C*V::n) += weight[r][key] * value[key][at..] of R rows. Lines are asked for with each key, if `ahead`. Key j's value
// is row slots[j], or j where slots is null.
template <class T, int R, int C>
inline void weigh(const float* weight, const T* values, const int64_t* slots, int64_t dim, int64_t at, int64_t keys,
                  float* const* acc, const char* ahead) {
  const int64_t row = row_items<T>(dim);
  V s[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) s[r][c] = V::load(acc[r] + c * V::n);
  for (int64_t j = 0; j < keys; ++j) {
    const Row<T> value(values + (slots ? slots[j] : j) * row, dim, at);
    if (ahead) ask_step<T, C>(ahead, j);
    V v[C];
    for (int c = 0; c < C; ++c) v[c] = value.load(c * V::n);
    for (int r = 0; r < R; ++r) {
      const V p = V::set(weight[r * kChunk + j]);
      for (int c = 0; c < C; ++c) s[r][c] = V::fma(p, v[c], s[r][c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) s[r][c].store(acc[r] + c * V::n);
}

template <class T, int R>
inline void weigh_rows(const float* weight, const T* values, const int64_t* slots, int64_t dim, int64_t keys,
                       float* const* acc, const char* ahead) {
  constexpr int C = kWideOf<T, R>;
  int64_t d = 0;
  float* at[R];
  for (; d + C * V::n <= dim; d += C * V::n) {
    for (int r = 0; r < R; ++r) at[r] = acc[r] + d;
    weigh<T, R, C>(weight, values, slots, dim, d, keys, at, ahead);
    if (ahead) ahead += keys * kStep<T, C>;
  }
  for (; d + V::n <= dim; d += V::n) {
    for (int r = 0; r < R; ++r) at[r] = acc[r] + d;
    weigh<T, R, 1>(weight, values, slots, dim, d, keys, at, nullptr);
  }
  for (; d < dim; ++d)
    for (int r = 0; r < R; ++r)
      for (int64_t j = 0; j < keys; ++j)
        acc[r][d] += weight[r * kChunk + j] * Row<T>(values + (slots ? slots[j] : j) * row_items<T>(dim), dim, d).one(0);
}

// Calls f with the number of rows, at most kRowsAtOnce, as a constant of the compiler's.
constexpr int64_t kRowsAtOnce = 6;
template <int64_t R>
struct Count {
  static constexpr int64_t value = R;
};
template <class F>
inline void at_once(int64_t rows, const F& f) {
  switch (rows) {
    case 1: return f(Count<1>());
    case 2: return f(Count<2>());
    case 3: return f(Count<3>());
    case 4: return f(Count<4>());
    case 5: return f(Count<5>());
    default: return f(Count<6>());
  }
}
