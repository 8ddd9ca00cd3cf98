// A team of threads that goes through a sequence of steps together: one start a call, and between two steps a barrier that
// spins. Starting threads for each step would cost ten microseconds, which is what a small product takes.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

namespace kvorum {

// True when the OpenMP runtime that torch has loaded was found; otherwise a team is the calling thread alone.
bool have_threads();

class Team {
 public:
  // Calls body(begin, end) until [0, count) is covered, in pieces of `grain`. Every thread of the team calls this, with the
  // same arguments, and none returns before all is done. Pieces are claimed, not dealt out: a core that is busy with
  // something else takes fewer.
  template <class F>
  void each(int64_t count, int64_t grain, F&& body) {
    const int size = this->size();
    if (size == 1) {
      if (count > 0) body(int64_t(0), count);
      return;
    }
    const uint64_t step = step_.load(std::memory_order_acquire);
    std::atomic<int64_t>& next = next_[step & 1];
    for (;;) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) break;
      body(begin, std::min(begin + grain, count));
    }
    wait(step, size);
  }

  int size() const { return size_.load(std::memory_order_relaxed); }
  void join(int size) { size_.store(size, std::memory_order_relaxed); }  // each thread, first; all with the same number

 private:
  void wait(uint64_t step, int size);

  std::atomic<int> size_{1};
  alignas(64) std::atomic<int64_t> next_[2] = {};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint64_t> step_{0};
};

// Runs body(data, team) on up to `threads` threads.
void start(int threads, void (*body)(void*, Team&), void* data);

template <class F>
void together(int threads, F&& f) {
  start(
      threads, [](void* d, Team& team) { (*static_cast<F*>(d))(team); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace kvorum
