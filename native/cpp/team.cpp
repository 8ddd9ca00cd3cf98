#include "team.h"

#ifdef _WIN32
#include <thread>
#else
#include <dlfcn.h>
#include <sched.h>
#endif

namespace kvorum {
namespace {

// libgomp's entries, which LLVM's and Intel's runtimes have too. They are looked up, not linked: a second runtime's threads
// would spin against torch's.
using Start = void (*)(void (*)(void*), void*, unsigned, unsigned);
using Size = int (*)();

template <class F>
F entry(const char* name) {
#ifdef _WIN32
  (void)name;  // torch's runtime for Windows has no such entries: a team is one thread there
  return nullptr;
#else
  return reinterpret_cast<F>(dlsym(RTLD_DEFAULT, name));
#endif
}

struct Job {
  void (*body)(void*, Team&);
  void* data;
  Size size;
  Team team;
};

void work(void* p) {
  Job& job = *static_cast<Job*>(p);
  job.team.join(job.size());  // the runtime may give fewer threads than were asked for
  job.body(job.data, job.team);
}

inline void pause() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
  asm volatile("isb");  // some cycles on every core; "yield" is none on most
#endif
}

}  // namespace

bool have_threads() {
  static const bool found = entry<Start>("GOMP_parallel") && entry<Size>("omp_get_num_threads");
  return found;
}

void Team::wait(uint64_t step, int size) {
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    next_[(step + 1) & 1].store(0, std::memory_order_relaxed);
    step_.store(step + 1, std::memory_order_release);
    return;
  }
  // A thread that waits long waits for one whose core was taken away: give it this one.
  for (int spins = 0; step_.load(std::memory_order_acquire) == step; ++spins)
    if (spins < 4096)
      pause();
    else
#ifdef _WIN32
      std::this_thread::yield();
#else
      sched_yield();
#endif
}

void start(int threads, void (*body)(void*, Team&), void* data) {
  if (threads <= 1 || !have_threads()) {
    Team alone;
    body(data, alone);
    return;
  }
  static const Start begin = entry<Start>("GOMP_parallel");
  static const Size size = entry<Size>("omp_get_num_threads");
  Job job{body, data, size, {}};
  begin(work, &job, static_cast<unsigned>(threads), 0);
}

}  // namespace kvorum
