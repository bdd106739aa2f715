// Whether an answer keeps clear of listed words and patterns.
//
// kind safety. Value: max(0, 1 - hits / limit), hits = the places where a listed word or phrase
// stands + the patterns that match; hits is reported beside it as <part>.hits.
//
// args: words=a,b (several times allowed), words_file=PATH and regex_file=PATH (one entry per line;
// blank lines and lines that begin with # are left out), regex=PATTERN (several times allowed),
// limit=1 (the number of hits that means 0).
//
// Words are compared whole, in lower case, after what hides them is undone: zero-width characters
// and soft hyphens removed, full-width letters made plain; punctuation and white space between the
// words of a phrase are ignored. Patterns see the answer as it is, in linear time
// (reward/rules/linear_regex.h). A list finds what is on it and nothing else: an answer may be
// harmful without a hit.
//
// Thread safety: immutable after construction. Errors: no entry at all, an unreadable file, an
// entry without letters, a pattern that does not compile: Error(kInvalidArgument) naming the part
// and the entry.
#pragma once

#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "reward/rules/linear_regex.h"
#include "reward/rules/rule.h"

namespace plumb::reward {

class WordList {
 public:
  // False: the entry has no letters or digits, or more than 16 words.
  bool Add(std::string_view entry);
  // Places where an entry begins; overlapping entries count each.
  size_t Hits(std::string_view text) const;
  bool empty() const { return phrases_.empty(); }

 private:
  std::unordered_set<std::string> phrases_;  // words joined by one space
  size_t longest_ = 0;                       // words
};

// Lower case without what hides a word.
std::string Unmasked(std::string_view text);

RuleParts MakeSafety(const configs::RewardPartConfig& part);

}  // namespace plumb::reward
