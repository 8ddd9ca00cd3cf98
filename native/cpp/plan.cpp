#include "plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace kvorum {
namespace {

const AttentionKernels* kernels = &kAttentionScalar;

// x[dim] as a row in int8, to the bit as kvorum/kv/int8_rows.py: each number the nearest of its group's 255.
void encode(const float* x, int64_t dim, Eight* row) {
  constexpr float kLeast = 0x1p-100f;  // 127 over less could be beyond what a float holds
  constexpr float kMagic = 0x1.8p23f;  // a float beside it has the whole number nearest to what was added as its last bits
  constexpr uint32_t kMagicBits = 0x4b400000;
  float* scales = reinterpret_cast<float*>(row);
  Eight* codes = row + scale_bytes(dim);
  for (int64_t from = 0; from < dim; from += kShared) {
    const int64_t end = std::min(dim, from + kShared);
    uint32_t bits[kShared], top = 0;
    std::memcpy(bits, x + from, (end - from) * 4);
    // sizes as whole numbers have the order of sizes as floats; what is no number is above all of them
    for (int64_t i = 0; i < end - from; ++i) top = std::max(top, bits[i] & 0x7fffffff);
    float most;
    std::memcpy(&most, &top, 4);
    const bool little = most < kLeast;
    const float by = little ? 0 : 127 / most;
    scales[from / kShared] = little ? 0 : most / 127;
    for (int64_t i = 0; i < end - from; ++i) {
      const float near = x[from + i] * by + kMagic;
      std::memcpy(bits + i, &near, 4);
      codes[from + i].code = static_cast<int8_t>(bits[i] - kMagicBits);
    }
  }
}

}  // namespace

void use_attention(const char* path) {
  kernels = &kAttentionScalar;
#ifdef KVORUM_X86
  if (!std::strcmp(path, "avx2")) kernels = &kAttentionAvx2;
  if (!std::strcmp(path, "avx512vnni")) kernels = &kAttentionAvx512;
#elif defined(KVORUM_ARM)
  if (std::strcmp(path, "scalar")) kernels = &kAttentionNeon;
#else
  (void)path;
#endif
}

Plan::Plan(const int64_t* table, int64_t segments, const int64_t* query_tokens, const int64_t* deltas,
           const int64_t* slots, int64_t tokens)
    : query_tokens_(query_tokens), deltas_(deltas), slots_(slots), tokens_(tokens) {
  for (int64_t i = 0; i < segments; ++i, table += 7)
    segments_.push_back({reinterpret_cast<const int64_t*>(table[0]), table[1], table[2], table[3], table[4], table[5],
                         table[6]});
  cut();
}

// Parts, and which of their results belong to which token.
void Plan::cut() {
  std::vector<int64_t> distance;  // of an entry's first key: entries of a token in falling order are in the order of its view
  begins_.assign(tokens_ + 1, 0);
  for (int64_t i = 0; i < static_cast<int64_t>(segments_.size()); ++i) {
    const Segment& s = segments_[i];
    for (int64_t from = s.begin, to; from < s.end; from = to) {
      const int64_t tile = query_tokens_[from] / kTokens;
      int64_t far = deltas_[from];
      for (to = from; to < s.end && query_tokens_[to] / kTokens == tile; ++to) far = std::max(far, deltas_[to]);
      const int64_t seen = std::min(s.length, far - s.first + 1);
      for (int64_t begin = 0; begin < seen; begin += kPart) {
        parts_.push_back({i, begin, std::min(begin + kPart, seen), from, to, static_cast<int64_t>(distance.size())});
        for (int64_t x = from; x < to; ++x) {
          ++begins_[query_tokens_[x] + 1];
          distance.push_back(deltas_[x] - s.first - begin);
        }
      }
    }
  }
  for (int64_t t = 0; t < tokens_; ++t) begins_[t + 1] += begins_[t];
  std::vector<int64_t> next(begins_.begin(), begins_.end() - 1);
  entries_.resize(distance.size());
  for (const Part& p : parts_)
    for (int64_t x = p.from; x < p.to; ++x) entries_[next[query_tokens_[x]]++] = p.entry + x - p.from;
  const auto farther = [&](int64_t a, int64_t b) { return distance[a] > distance[b]; };
  for (int64_t t = 0; t < tokens_; ++t) {
    const auto begin = entries_.begin() + begins_[t], end = entries_.begin() + begins_[t + 1];
    if (!std::is_sorted(begin, end, farther)) std::sort(begin, end, farther);
  }
}

void Plan::watch(const Tap& tap) {
  tap_ = tap;
  cuts_.assign(1, 0);
  sums_at_.assign(1, 0);
  pieces_.clear();
  parts_of_.resize(entries_.size());
  for (int64_t i = 0; i < static_cast<int64_t>(parts_.size()); ++i) {
    const Part& p = parts_[i];
    const Segment& s = segments_[p.segment];
    for (int64_t j = p.begin; j < p.end; ++j) {
      const int64_t group = tap.group[s.slots ? s.slots[j] : s.slot + j];
      const bool begins = static_cast<int64_t>(pieces_.size()) == cuts_[i] || pieces_.back().group != group;
      if (begins) pieces_.push_back({j, j, group});
      ++pieces_.back().end;
    }
    cuts_.push_back(pieces_.size());
    sums_at_.push_back(sums_at_[i] + (p.to - p.from) * (cuts_[i + 1] - cuts_[i]));
    std::fill_n(parts_of_.begin() + p.entry, p.to - p.from, i);
  }
}

void Plan::prepare(const Layer& l) {
  const size_t floats = entries_.size() * l.q_heads * (l.v_dim + 2);
  if (results_.size() < floats) results_.resize(floats);
  if (tap_.out && sums_.size() < static_cast<size_t>(sums_at_.back() * l.q_heads)) sums_.resize(sums_at_.back() * l.q_heads);
}

void Plan::attend(Team& team, const Layer& l, const Rotation& turns, const Inputs& in) {
  team.each(tokens_, 4, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) write(l, turns, in, n);
  });
  team.each(static_cast<int64_t>(parts_.size()) * l.kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) part(l, turns, in, i / l.kv_heads, i % l.kv_heads);
  });
}

void Plan::write(const Layer& l, const Rotation& turns, const Inputs& in, int64_t n) const {
  static thread_local std::vector<float> room;
  room.resize(l.k_dim);
  const auto put = [&](const float* x, int64_t dim, void* cache, int64_t head) {
    const int64_t at = head * l.slots + slots_[n];
    if (l.stored == kInt8)
      encode(x, dim, static_cast<Eight*>(cache) + at * row_items<Eight>(dim));
    else if (l.stored == kFloat16)
      kernels->narrow(x, dim, static_cast<Half*>(cache) + at * dim);
    else
      std::copy_n(x, dim, static_cast<float*>(cache) + at * dim);
  };
  for (int64_t h = 0; h < l.kv_heads; ++h) {
    std::copy_n(in.k + n * in.k_token + h * l.k_dim, l.k_dim, room.data());
    turn(room.data(), turns.new_cos + n * l.half, turns.new_sin + n * l.half, l.style, l.start, l.half);
    put(room.data(), l.k_dim, l.keys, h);
    put(in.v + n * in.v_token + h * l.v_dim, l.v_dim, l.values, h);
  }
}

Look Plan::look(const Layer& l, int64_t part) {
  if (!tap_.out) return {};
  return {pieces_.data() + cuts_[part], cuts_[part + 1] - cuts_[part], tap_.line, sums_.data() + sums_at_[part] * l.q_heads};
}

void Plan::part(const Layer& l, const Rotation& turns, const Inputs& in, int64_t part, int64_t head) {
  static thread_local std::vector<float> scratch;
  const Part& p = parts_[part];
  scratch.resize(scratch_floats(l, (p.to - p.from) * (l.q_heads / l.kv_heads)));
  kernels->attend({&l, &segments_[p.segment], p, {query_tokens_, deltas_, turns.query_cos, turns.query_sin},
                   turns.shift_row, turns.shift_cos, turns.shift_sin, in.q, in.q_token, head, results_.data(), scratch.data(),
                   look(l, part)});
}

void Plan::merge(const Layer& l, int64_t token, float* out) const {
  static thread_local std::vector<float> scratch;
  const int64_t width = l.v_dim + 2, count = begins_[token + 1] - begins_[token];
  scratch.resize(count + 16);
  for (int64_t h = 0; h < l.q_heads; ++h, out += l.v_dim)
    kernels->merge(results_.data() + h * width, entries_.data() + begins_[token], count, l.q_heads * width, l.v_dim,
                   l.sinks ? l.sinks + h : nullptr, scratch.data(), out);
}

void Plan::share(const Layer& l, int64_t at, int64_t token) const {
  if (!tap_.out || tap_.line[token] < 0) return;
  float* out = tap_.out + (at * tap_.lines + tap_.line[token]) * tap_.groups;
  std::fill_n(out, tap_.groups, 0.0f);
  const int64_t width = l.v_dim + 2;
  for (int64_t h = 0; h < l.q_heads; ++h) {
    const auto state = [&](int64_t entry) { return results_.data() + (entry * l.q_heads + h) * width; };
    float max = l.sinks ? l.sinks[h] : state(entries_[begins_[token]])[0];
    for (int64_t i = begins_[token]; i < begins_[token + 1]; ++i) max = std::max(max, state(entries_[i])[0]);
    float total = l.sinks ? std::exp(l.sinks[h] - max) : 0.0f;
    for (int64_t i = begins_[token]; i < begins_[token + 1]; ++i)
      total += std::exp(state(entries_[i])[0] - max) * state(entries_[i])[1];
    for (int64_t i = begins_[token]; i < begins_[token + 1]; ++i) {
      const int64_t entry = entries_[i], part = parts_of_[entry], count = cuts_[part + 1] - cuts_[part];
      const float* sums = sums_.data() + sums_at_[part] * l.q_heads + ((entry - parts_[part].entry) * l.q_heads + h) * count;
      const float by = std::exp(state(entry)[0] - max) / (total * float(l.q_heads));
      for (int64_t j = 0; j < count; ++j) out[pieces_[cuts_[part] + j].group] += by * sums[j];
    }
  }
}

}  // namespace kvorum
