#include "sampling.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "portable.h"
#include "team.h"

namespace kvorum {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr double kAlmost = 1 - 0x1p-53;

float top(const float* x, int64_t n) {
  float best = kNever;
  for (int64_t i = 0; i < n; ++i) {
    if (std::isnan(x[i])) return x[i];
    best = std::max(best, x[i]);
  }
  return best;
}

void weigh(const float* x, int64_t n, float top, float divisor, float* weights, float* sums) {
  for (int64_t begin = 0; begin < n; begin += kSum, ++sums) {
    const int64_t end = std::min(begin + kSum, n);
    float lanes[8] = {};
    for (int64_t i = begin; i < end; ++i) {
      const float v = (x[i] - top) / divisor;
      weights[i] = v >= -87.0f ? std::exp(v) : 0.0f;
      lanes[i % 8] += weights[i];
    }
    *sums = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  }
}

const SamplingKernels* current = &kSamplingScalar;

struct Place {
  int64_t at;
  double rest;
};

// Which of n weights `point` in [0, 1) of their sum falls on, and at which point in [0, 1) of that weight.
template <class Weight>
Place find(int64_t n, double point, Weight&& weight) {
  double total = 0, run = 0;
  for (int64_t i = 0; i < n; ++i) total += weight(i);
  const double place = point * total;
  int64_t last = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double w = weight(i), before = run;
    run += w;
    if (run > place) return {i, std::min((place - before) / (run - before), kAlmost)};
    if (w > 0) last = i;
  }
  return {last, kAlmost};  // rounding at the very end
}

struct Ranked {
  float score;
  int32_t id;
  bool operator<(const Ranked& other) const { return score > other.score || (score == other.score && id < other.id); }
};

// One thread's room for a row: its scores where some are left out, the weights of what it draws from, and their sums.
class Row {
 public:
  explicit Row(int64_t vocab) : n_(vocab), scores_(vocab), weights_(vocab), sums_((vocab + kSum - 1) / kSum) {}

  int64_t vocab() const { return n_; }

  void answer(Draw& d) {
    const float peak = current->top(d.logits, n_);
    const bool all = !d.allowed && !d.bans;
    const float* scores = all ? d.logits : left(d);
    best_ = all ? peak : current->top(scores, n_);
    d.logprob = std::numeric_limits<double>::quiet_NaN();
    if (!std::isfinite(best_)) return;
    divisor_ = float(std::min(std::max(d.temperature, double(FLT_MIN)), double(FLT_MAX)));
    if (d.temperature == 0) {
      d.id = std::find(scores, scores + n_, best_) - scores;
    } else {
      weigh(scores, best_, divisor_);
      d.id = draw(d, scores, uniform(d.seed, d.stream, d.step));
    }
    if (!d.telling || !std::isfinite(peak)) return;
    if (!all || d.temperature != 1) weigh(d.logits, peak, 1);
    d.logprob = double(d.logits[d.id]) - (double(peak) + std::log(total()));
  }

 private:
  // The logits, those that may not be picked at -inf.
  const float* left(const Draw& d) {
    if (d.allowed)
      for (int64_t i = 0; i < n_; ++i) scores_[i] = d.allowed[i] ? d.logits[i] : kNever;
    else
      std::memcpy(scores_.data(), d.logits, n_ * sizeof(float));
    for (int64_t i = 0; i < d.bans; ++i) scores_[d.banned[i]] = kNever;
    return scores_.data();
  }

  void weigh(const float* x, float top, float divisor) {
    current->weigh(x, n_, top, divisor, weights_.data(), sums_.data());
  }

  double total() const {
    double total = 0;
    for (float sum : sums_) total += sum;
    return total;
  }

  int64_t draw(const Draw& d, const float* scores, double point) {
    if (d.top_k == 0 && d.top_p == 1 && d.min_p == 0) {
      const Place part = find(sums_.size(), point, [&](int64_t i) { return double(sums_[i]); });
      const int64_t begin = part.at * kSum;
      return begin + find(std::min(kSum, n_ - begin), part.rest, [&](int64_t i) { return double(weights_[begin + i]); }).at;
    }
    if (d.top_k == 0 && d.top_p == 1)
      gather(scores, float(d.min_p));
    else
      rank(d, scores);
    return kept_[find(kept_.size(), point, [&](int64_t i) { return double(weights_[kept_[i].id]); }).at].id;
  }

  // Whose weight is at least `edge` and not 0, the lower ids first.
  void gather(const float* scores, float edge) {
    kept_.clear();
    for (size_t part = 0; part < sums_.size(); ++part) {
      if (sums_[part] < edge) continue;
      const int64_t begin = int64_t(part) * kSum, end = std::min(begin + kSum, n_);
      for (int64_t i = begin; i < end; ++i)
        if (weights_[i] >= edge && weights_[i] > 0) kept_.push_back({(scores[i] - best_) / divisor_, int32_t(i)});
    }
  }

  double sum() const {
    double sum = 0;
    for (const Ranked& each : kept_) sum += weights_[each.id];
    return sum;
  }

  // What the filters leave, the likeliest first. Looks at no more of the vocabulary than it must.
  void rank(const Draw& d, const float* scores) {
    const double mass = d.top_k ? 0 : total();
    for (const float reach : {2.0f, 4.0f, 8.0f, 16.0f, 32.0f, 88.0f}) {
      const bool whole = reach == 88.0f;
      gather(scores, whole ? 0.0f : std::exp(-reach));
      if (!whole && int64_t(kept_.size()) < std::min(d.top_k, n_)) continue;
      if (!whole && !d.top_k && sum() < d.top_p * mass) continue;
      std::sort(kept_.begin(), kept_.end());
      if (d.top_k && int64_t(kept_.size()) > d.top_k) kept_.resize(d.top_k);
      if (d.top_p < 1) {
        const double aim = d.top_p * (d.top_k ? sum() : mass);
        size_t count = 0;
        for (double run = 0; count < kept_.size() && run < aim;) run += weights_[kept_[count++].id];
        kept_.resize(std::max<size_t>(count, 1));
      }
      break;
    }
    const float edge = float(d.min_p);
    kept_.erase(std::remove_if(kept_.begin(), kept_.end(), [&](const Ranked& r) { return weights_[r.id] < edge; }),
                kept_.end());
  }

  int64_t n_;
  float best_ = 0, divisor_ = 1;
  std::vector<float> scores_, weights_, sums_;
  std::vector<Ranked> kept_;
};

}  // namespace

const SamplingKernels kSamplingScalar = {top, weigh};

void use_sampling(const char* path) {
  current = &kSamplingScalar;
#ifdef KVORUM_X86
  if (std::strcmp(path, "scalar")) current = &kSamplingAvx2;
#elif defined(KVORUM_ARM)
  if (std::strcmp(path, "scalar")) current = &kSamplingNeon;
#else
  (void)path;
#endif
}

void Draws::run(int threads) {
  const int64_t count = draws_.size();
  together(int(std::min<int64_t>(threads, count)), [&](Team& team) {
    static thread_local std::unique_ptr<Row> row;  // claiming its memory anew would take as long as a draw
    if (!row || row->vocab() != vocab_) row = std::make_unique<Row>(vocab_);
    team.each(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) row->answer(draws_[i]);
    });
  });
}

double uniform(uint64_t seed, uint64_t stream, uint64_t step) {
  uint64_t c[4] = {step + 1, step + 1 == 0, 0, 0}, k[2] = {seed, stream};  // counted up before its first use
  for (int round = 0; round < 10; ++round, k[0] += 0x9E3779B97F4A7C15u, k[1] += 0xBB67AE8584CAA73Bu) {
    const Wide a = product(0xD2E7470EE14C6C93u, c[0]), b = product(0xCA5A826395121157u, c[2]);
    const uint64_t next[4] = {b.high ^ c[1] ^ k[0], b.low, a.high ^ c[3] ^ k[1], a.low};
    std::memcpy(c, next, sizeof c);
  }
  return double(c[0] >> 11) * 0x1p-53;
}

}  // namespace kvorum
