// Stop strings, looked for in the tail of what a sample has written.
//
// Purpose: a stop string may begin and end anywhere within tokens; each slot keeps just the bytes
// that a string could still begin in. Thread safety: none. Ownership: owns tails; the tokenizer is
// the caller's.
// Allocation: none after construction. Errors: kInvalidArgument for an empty stop string.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace plumb::actor {

class StopStrings {
 public:
  StopStrings(std::vector<std::string> strings, int32_t slots);

  bool active() const { return !strings_.empty(); }
  // A new sample in `slot`: nothing written yet.
  void Reset(int32_t slot);
  // Appends the bytes of one token; true when a stop string ends within them.
  bool Append(int32_t slot, std::string_view bytes);

 private:
  const std::vector<std::string> strings_;
  // bytes before the newest token that can matter: longest string - 1
  size_t keep_ = 0;
  std::vector<std::string> tails_;  // [slots], at most keep_ bytes between calls
  std::string window_;              // tail + new bytes
};

}  // namespace plumb::actor
