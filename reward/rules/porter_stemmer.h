// English word stems: M. F. Porter, "An algorithm for suffix stripping", 1980, with the departures
// that NLTK's stemmer makes by default (irregular forms, -ies and -ied of four letters, -y behind a
// consonant, -alli, -fulli, -logi, two-letter stems), because published ROUGE scores with stemming
// are made with it.
//
// Thread safety: pure functions. Cost: linear in the word.
#pragma once

#include <string>
#include <string_view>

namespace plumb::reward {

// REQUIRES: a-z and 0-9 only; digits count as consonants. Never empty for a word that is not.
std::string PorterStem(std::string_view word);

}  // namespace plumb::reward
