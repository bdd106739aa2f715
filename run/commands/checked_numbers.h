// What an option of numbers or of a few words takes, for CLI::Option::check: a sentence where CLI11
// would print a range of 309 digits, take another number than was written, or not say which word
// was meant.
//
// Purpose: numbers beyond 64 bits, negative ones for an unsigned option, NaN and infinity are
// refused like any other that is out of range. Thread safety: pure functions. Errors: none; what a
// validator says becomes the error of the command line.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace plumb::run {

CLI::Validator WholeNumber(int64_t least, uint64_t most = std::numeric_limits<int64_t>::max());
CLI::Validator NumberFrom(double least, double most = std::numeric_limits<double>::infinity());
CLI::Validator NumberAbove(double bound);
// One of these words, as written; a misspelt one is told the nearest.
CLI::Validator OneOf(std::vector<std::string> words);

}  // namespace plumb::run
