#include "actor/step_graphs.h"

#include <algorithm>
#include <exception>
#include <string>

#include "common/base/log.h"

namespace plumb::actor {

int32_t StepGraphs::Rows(int32_t rows, int32_t most) {
  const auto up = [&](int32_t multiple) { return (rows + multiple - 1) / multiple * multiple; };
  int32_t filled = 1;
  if (rows > 256) {
    filled = up(32);
  } else if (rows > 64) {
    filled = up(16);
  } else if (rows > 8) {
    filled = up(8);
  } else {
    while (filled < rows) filled *= 2;
  }
  return std::min(filled, most);
}

void StepGraphs::Run(const std::function<StepKind()>& kind_now,
                     const std::function<void()>& enqueue) {
  if (refused_) {
    enqueue();
    return;
  }
  StepKind kind = kind_now();
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.kind == kind; });
  if (found == entries_.end()) {
    enqueue();
    // Where the step took memory, it lies elsewhere now.
    entries_.push_front({.kind = kind_now(), .work = std::nullopt});
    if (entries_.size() > kMost) entries_.pop_back();
    return;
  }
  entries_.splice(entries_.begin(), entries_, found);
  Entry& entry = entries_.front();
  if (!entry.work) {
    try {
      entry.work.emplace(stream_, enqueue);
    } catch (const std::exception& e) {  // a library's, too
      refused_ = true;
      entries_.clear();
      LogWarning(std::string("decode steps are not recorded as CUDA graphs, which makes small "
                             "models slower: ") +
                 e.what());
      enqueue();
      return;
    }
  }
  entry.work->Replay();
  ++replays_;
}

}  // namespace plumb::actor
