// The known name that a misspelt one most likely means, for error messages.
//
// Thread safety: pure functions. O(length of `word` x length of all names).
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace plumb {

// Insertions, deletions and replacements of one letter, and swaps of two neighbours, that lead from
// `a` to `b`.
size_t EditDistance(std::string_view a, std::string_view b);

// The first of the nearest names, or "" where none is within `most` edits.
std::string NearestName(std::string_view word, std::span<const std::string> names,
                        size_t most = ~size_t{0});

// ", did you mean 'train'?", or "" where the nearest name has little to do with `word`: more than a
// third of its letters (at least two) differ.
std::string DidYouMean(std::string_view word, std::span<const std::string> names);

}  // namespace plumb
