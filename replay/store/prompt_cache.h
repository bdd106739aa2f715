// Prompts of a store that lives elsewhere, asked for once and together.
//
// Purpose: groups name their prompts (PromptRef); whoever scores them needs the texts. Want says
// early that a prompt will be needed, without any waiting; the first Get that does not find its
// prompt asks for all that are wanted in one question. Memory: at most max_bytes of prompts; those
// not used for longest go first. One larger than that is asked for each time. Thread safety: all
// methods; one question at a time, and whoever needs its answer waits for it. Ownership: owns its
// copies. Errors: those of the question; what was wanted is then asked for by the next Get.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "common/base/mutex.h"
#include "replay/store/store.h"

namespace plumb::replay {

class PromptCache {
 public:
  // `ask` answers in order, e.g. ReplayClient::Prompts.
  using Ask = std::function<std::vector<Prompt>(std::span<const PromptRef>)>;
  explicit PromptCache(Ask ask, size_t max_bytes = size_t{64} << 20)
      : ask_(std::move(ask)), max_bytes_(max_bytes) {}

  void Want(const PromptRef& ref);
  Prompt Get(const PromptRef& ref);

 private:
  using Key = std::tuple<std::string, uint64_t, uint32_t>;
  static Key KeyOf(const PromptRef& ref) { return {ref.dataset, ref.row, ref.sum}; }
  struct Entry {
    Key key;
    Prompt prompt;
    size_t bytes = 0;
  };
  const Prompt* Find(const Key& key) PLUMB_REQUIRES(mu_);
  void Keep(const PromptRef& ref, const Prompt& prompt) PLUMB_REQUIRES(mu_);

  const Ask ask_;
  const size_t max_bytes_;
  Mutex asking_;
  Mutex mu_ PLUMB_ACQUIRED_AFTER(asking_);
  std::list<Entry> entries_ PLUMB_GUARDED_BY(mu_);  // used last in front
  std::map<Key, std::list<Entry>::iterator> index_ PLUMB_GUARDED_BY(mu_);
  std::map<Key, PromptRef> wanted_ PLUMB_GUARDED_BY(mu_);
  size_t bytes_ PLUMB_GUARDED_BY(mu_) = 0;
};

}  // namespace plumb::replay
