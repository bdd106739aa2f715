#include "run/roles/thread_count.h"

#include <sched.h>

#include <algorithm>

namespace plumb::run {

int ProcessorsAllowed() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

std::string TooManyThreads(const configs::Config& config, int processors) {
  if (config.run.threads <= processors) return "";
  return "run.threads = " + std::to_string(config.run.threads) + ", but this process may use " +
         std::to_string(processors) + (processors == 1 ? " processor" : " processors") +
         " only: threads that wait for one make every step slower; set run.threads = " +
         std::to_string(processors) + ", or 0 for as many as there are";
}

}  // namespace plumb::run
