// A line of a verb cut between words, so that a terminal does not cut it within one.
//
// Purpose: behind the last ';' that leaves no line less than half full, else between the last two
// words that fit; what follows is indented. A word that is longer than a line stays whole: a path
// is copied. Thread safety: pure, but for the size of the terminal. Units: columns, one a
// character.
#pragma once

#include <cstdio>
#include <string>

namespace plumb::run {

// With line breaks, none at the end.
std::string WrapLine(const std::string& line, size_t width);

// Wrapped to the terminal that `out` is; as it is where that is none.
std::string FitLine(const std::string& line, std::FILE* out);

}  // namespace plumb::run
