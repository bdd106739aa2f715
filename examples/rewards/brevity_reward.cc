// A reward in C++ with an option from the recipe: 1 up to `limit` words, then limit / words.
//
//   c++ -std=c++17 -shared -fPIC -O2 -I <plumb>/ -o brevity_reward.so brevity_reward.cc
//
//   [[reward.parts]]
//   name = "brevity"
//   kind = "plugin"
//   path = "brevity_reward.so"
//   args = ["limit=20"]
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>

#include "reward/doors/reward_abi.h"

namespace {

struct Brevity {
  double limit = 50;

  double Score(const std::string& completion) const {
    std::istringstream in(completion);
    double words = 0;
    for (std::string word; in >> word;) ++words;
    return words <= limit ? 1.0 : limit / words;
  }
};

}  // namespace

extern "C" {

uint32_t plumb_reward_abi_version(void) { return PLUMB_REWARD_ABI_VERSION; }

int32_t plumb_reward_open(int32_t argc, const char* const* argv, void** state) {
  auto brevity = std::make_unique<Brevity>();
  for (int32_t i = 0; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind("limit=", 0) == 0) brevity->limit = std::atof(argument.c_str() + 6);
  }
  if (!(brevity->limit > 0)) return 1;  // refused: the run does not start
  *state = brevity.release();
  return 0;
}

int64_t plumb_reward_score(void* state, const plumb_reward_batch* batch,
                           plumb_reward_result* results) {
  const auto* brevity = static_cast<const Brevity*>(state);
  for (uint64_t i = 0; i < batch->count; ++i) {
    const plumb_reward_item* item = PLUMB_REWARD_ITEM(batch, i);
    results[i].value = brevity->Score(std::string(item->completion.data, item->completion.size));
  }
  return static_cast<int64_t>(batch->count);
}

void plumb_reward_close(void* state) { delete static_cast<Brevity*>(state); }

}  // extern "C"
