// From logits to tokens, all rows of a tick at once; kvorum/engine/sampling.py says what is drawn and has the plain twin.
#pragma once
#include <cstdint>
#include <vector>

#include "sampling_kernels.h"

namespace kvorum {

// Makes that path's kernels the ones in use. AVX-512 takes those of AVX2: they wait for memory as it is. All of NEON have the same.
void use_sampling(const char* path);

// What is asked of a row's logits, and the answer.
struct Draw {
  const float* logits;
  const uint8_t* allowed;  // [vocab] or null
  const int64_t* banned;   // [bans], each in the vocabulary
  int64_t bans;
  double temperature, top_p, min_p;
  int64_t top_k;
  uint64_t seed, stream, step;
  bool telling;
  int64_t id = -1;     // stays -1 where no token is left
  double logprob = 0;  // NaN unless asked for
};

// The draws of one tick.
class Draws {
 public:
  explicit Draws(int64_t vocab) : vocab_(vocab) {}
  void add(const Draw& draw) { draws_.push_back(draw); }
  void run(int threads);
  const std::vector<Draw>& done() const { return draws_; }

 private:
  int64_t vocab_;
  std::vector<Draw> draws_;
};

// The number in [0, 1) that numpy's Generator(Philox(key=[seed, stream], counter=[step, 0, 0, 0])).random() gives first.
double uniform(uint64_t seed, uint64_t stream, uint64_t step);

}  // namespace kvorum
