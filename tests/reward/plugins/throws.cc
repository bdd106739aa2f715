// Throws what the ground truth says; otherwise scores with the number of calls so far.
#include <stdexcept>
#include <string>
#include <vector>

#include "reward/doors/reward_abi.h"

extern "C" uint32_t plumb_reward_abi_version(void) { return PLUMB_REWARD_ABI_VERSION; }

extern "C" int64_t plumb_reward_score(void*, const plumb_reward_batch* batch,
                                      plumb_reward_result* results) {
  static double calls = 0;
  ++calls;
  const std::string what = PLUMB_REWARD_ITEM(batch, 0)->ground_truth.data;
  if (what == "memory") std::vector<char>(size_t{10} << 30).at(1) = 1;
  if (what == "runtime") throw std::runtime_error("on purpose");
  if (what == "int") throw 7;
  for (uint64_t i = 0; i < batch->count; ++i) results[i].value = calls;
  return static_cast<int64_t>(batch->count);
}
