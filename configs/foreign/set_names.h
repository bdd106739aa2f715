// What --set gave, by option: two names of one option that contradict each other are a mistake.
//
// Purpose: a recipe's file says an option once, and TOML sees to it. On a command line the same
// name may come again, as scripts append it, and the last one counts; but where another name, or a
// value of another system that stands for several options, says something else of the option, one
// of the two would be dropped without a word. Thread safety: as a std::map. Errors: none; a
// contradiction is a sentence.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/text.h"

namespace plumb::configs {

class SetNames {
 public:
  // `option` is `value` by --set `item`, "section.key=value". Returns what is wrong with it, "":
  // nothing is.
  std::string Give(const std::string& option, const std::string& value, const std::string& item) {
    const auto [at, first] = given_.try_emplace(option, Given{value, item});
    if (first) return "";
    const Given before = std::exchange(at->second, {value, item});
    if (before.value == value || Within(NameOf(before.item), NameOf(item))) return "";
    return option + " is " + before.value + " by --set " + before.item + ", and " + value +
           " here: keep one of them";
  }

 private:
  struct Given {
    std::string value, item;
  };
  static std::string NameOf(const std::string& item) {
    return std::string(Trim(std::string_view(item).substr(0, item.find('='))));
  }
  // One name, or a table and what stands in it.
  static bool Within(const std::string& a, const std::string& b) {
    return a == b || a.starts_with(b + ".") || b.starts_with(a + ".");
  }

  std::map<std::string, Given> given_;
};

}  // namespace plumb::configs
