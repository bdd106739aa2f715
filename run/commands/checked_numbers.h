// What an option of numbers takes, for CLI::Option::check: a sentence where CLI11 would print a
// range of 309 digits, or take another number than was written.
//
// Purpose: numbers beyond 64 bits, negative ones for an unsigned option, NaN and infinity are
// refused like any other that is out of range. Thread safety: pure functions. Errors: none; what a
// validator says becomes the error of the command line.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <limits>

namespace plumb::run {

CLI::Validator WholeNumber(int64_t least, uint64_t most = std::numeric_limits<int64_t>::max());
CLI::Validator NumberFrom(double least, double most = std::numeric_limits<double>::infinity());
CLI::Validator NumberAbove(double bound);

}  // namespace plumb::run
