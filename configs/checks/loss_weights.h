// Whether losses that are added up have weights that make a sum.
//
// Purpose: one rule for preference.losses and for TRL's loss_type with loss_weights. Thread safety:
// a pure function. Errors: none; what is wrong is a clause.
#pragma once

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "configs/pattern_number.h"
#include "configs/value_text.h"

namespace plumb::configs {

// "gives \"sft\" the weight -1: ...", to stand behind the option's name; "": nothing is wrong.
inline std::string WrongLossWeights(const std::vector<PatternNumber>& losses) {
  std::set<std::string> names;
  bool any = losses.empty();
  for (const auto& [name, weight] : losses) {
    if (!names.insert(name).second)
      return "names " + Quote(name) + " twice: once is enough, with the sum of its weights";
    if (!(weight >= 0) || !std::isfinite(static_cast<float>(weight)))
      return "gives " + Quote(name) + " the weight " + NumberText(weight) +
             ": a weight is a finite number of 32 bits, 0 or more";
    any = any || static_cast<float>(weight) > 0;
  }
  return any ? "" : "gives every loss the weight 0: nothing would be learned";
}

}  // namespace plumb::configs
