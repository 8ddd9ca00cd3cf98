#include "parallel.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>

namespace kvorum {
namespace {

// libgomp's entry, which LLVM's and Intel's runtimes have too. It is looked up, not linked: a second runtime's threads
// would spin against torch's.
using Start = void (*)(void (*)(void*), void*, unsigned, unsigned);

Start start() {
  static const Start found = reinterpret_cast<Start>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return found;
}

struct Job {
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) int64_t count;
  int64_t grain;
  void (*body)(void*, int64_t, int64_t);
  void* data;
};

// Pieces are claimed, not dealt out: a core that is busy with something else takes fewer.
void work(void* p) {
  Job& job = *static_cast<Job*>(p);
  for (;;) {
    const int64_t begin = job.next.fetch_add(job.grain, std::memory_order_relaxed);
    if (begin >= job.count) return;
    job.body(job.data, begin, std::min(begin + job.grain, job.count));
  }
}

}  // namespace

bool have_threads() { return start() != nullptr; }

void parallel(int64_t count, int64_t grain, int threads, void (*body)(void*, int64_t, int64_t), void* data) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t pieces = (count + grain - 1) / grain;
  threads = static_cast<int>(std::min<int64_t>(threads, pieces));
  if (threads <= 1 || !start()) {
    body(data, 0, count);
    return;
  }
  Job job;
  job.count = count;
  job.grain = grain;
  job.body = body;
  job.data = data;
  start()(work, &job, static_cast<unsigned>(threads), 0);
}

}  // namespace kvorum
