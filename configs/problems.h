// What is wrong with a recipe, a sentence each, in the order in which it was found.
//
// Thread safety: as a std::vector.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace plumb::configs {

class Problems {
 public:
  void Require(bool fine, std::string sentence) {
    if (!fine) list_.push_back(std::move(sentence));
  }
  std::vector<std::string> list() && { return std::move(list_); }

 private:
  std::vector<std::string> list_;
};

}  // namespace plumb::configs
