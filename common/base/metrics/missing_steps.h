// Which steps of a run a file of metrics does not have: lines that were damaged or lost.
//
// Purpose: whoever shows a run says so, instead of drawing a line across the hole. Steps come in
// rising order; one that comes again takes the place of the first and of all behind it, as a
// resumed run's do. Before step 0 nothing can be missing.
// Thread safety: none. Errors: none. Memory: 16 bytes a hole.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace plumb {

class MissingSteps {
 public:
  void Step(int64_t step);
  void Clear() { *this = MissingSteps(); }

  int64_t count() const { return count_; }
  // First and last step of each hole, rising.
  const std::vector<std::pair<int64_t, int64_t>>& holes() const { return holes_; }
  // "3, 7 to 9 and 2 more"; "" when none is missing.
  std::string Text(size_t most_holes = 5) const;

 private:
  int64_t next_ = 0;  // the step that would leave no hole
  int64_t count_ = 0;
  std::vector<std::pair<int64_t, int64_t>> holes_;
};

}  // namespace plumb
