// "pattern=number": what lists of options say of names.
//
// Thread safety: a pure function. Errors: kInvalidArgument with the option and the entry.
#pragma once

#include <cmath>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"

namespace plumb::configs {

using PatternNumber = std::pair<std::string, double>;

// In the order of the list. The number follows the last '=': a pattern may have one.
inline std::vector<PatternNumber> ReadPatternNumbers(const std::vector<std::string>& entries,
                                                     const std::string& option) {
  std::vector<PatternNumber> out;
  for (const std::string& entry : entries) {
    const size_t equals = entry.rfind('=');
    const std::string number = equals == std::string::npos ? "" : entry.substr(equals + 1);
    char* end = nullptr;
    const double value = std::strtod(number.c_str(), &end);
    if (equals == 0 || number.empty() || *end != '\0' || !std::isfinite(value)) {
      throw Error(ErrorCode::kInvalidArgument, "holds \"" + entry + "\": write \"pattern=number\"",
                  option);
    }
    out.emplace_back(entry.substr(0, equals), value);
  }
  return out;
}

}  // namespace plumb::configs
