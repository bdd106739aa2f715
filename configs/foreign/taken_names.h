// Names of other systems that a recipe and --set used, so that it is said once as what each is
// taken.
//
// Purpose: "rollout.num_generations" is no name of ours and is taken all the same; who meant
// something else has to see it. Thread safety: as a std::map. Errors: none.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/text.h"

namespace plumb::configs {

class TakenNames {
 public:
  // `option` was given under the full name `name`; by --set `item`, "section.key=value", "": by the
  // file.
  void Take(const std::string& option, const std::string& name, const std::string& item) {
    const std::string typed(Trim(std::string_view(item).substr(0, item.find('='))));
    // A whole table, or an entry of one.
    const bool within = option.starts_with(typed) || typed.starts_with(option + ".");
    const std::string& written = name != option || within ? name : typed;
    if (written == option) return;
    for (auto& [known, options] : taken_) {
      if (known != written) continue;
      for (const std::string& one : options) {
        if (one == option) return;
      }
      options.push_back(option);
      return;
    }
    taken_.push_back({written, {option}});
  }

  // A sentence for each name.
  void Say(std::vector<std::string>& notes) const {
    for (const auto& [name, options] : taken_) {
      std::string list;
      for (const std::string& option : options) list += (list.empty() ? "" : " and ") + option;
      notes.push_back(name + " is taken as " + list);
    }
  }

 private:
  std::vector<std::pair<std::string, std::vector<std::string>>> taken_;  // in their order
};

}  // namespace plumb::configs
