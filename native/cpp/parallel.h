// Runs pieces of work on the threads of the OpenMP runtime that torch has already loaded.
#pragma once
#include <cstdint>

namespace kvorum {

// True when that runtime was found; otherwise parallel() runs on the calling thread alone.
bool have_threads();

// Calls body(data, begin, end) until [0, count) is covered, in pieces of `grain`, on up to `threads` threads.
void parallel(int64_t count, int64_t grain, int threads, void (*body)(void*, int64_t, int64_t), void* data);

template <class F>
void parallel_for(int64_t count, int64_t grain, int threads, F&& f) {
  parallel(
      count, grain, threads, [](void* d, int64_t b, int64_t e) { (*static_cast<F*>(d))(b, e); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace kvorum
