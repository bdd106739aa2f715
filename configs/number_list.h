// An option that is a fixed number of numbers, written as a list of texts.
//
// Purpose: one reader of it, for the validation and for whoever uses it. Thread safety: pure
// functions. Errors: kInvalidArgument naming the option and the entry.
#pragma once

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/base/error.h"

namespace plumb::configs {

inline std::vector<double> ReadNumbers(const std::vector<std::string>& entries, size_t count,
                                       const std::string& option) {
  if (entries.size() != count) {
    throw Error(ErrorCode::kInvalidArgument,
                "is a list of " + std::to_string(count) + " numbers, each in quotes", option);
  }
  std::vector<double> out;
  for (const std::string& entry : entries) {
    char* end = nullptr;
    out.push_back(std::strtod(entry.c_str(), &end));
    if (entry.empty() || *end != '\0' || !std::isfinite(out.back()))
      throw Error(ErrorCode::kInvalidArgument, "holds \"" + entry + "\", which is no number",
                  option);
  }
  return out;
}

}  // namespace plumb::configs
