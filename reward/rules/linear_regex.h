// Whether a pattern occurs in a text, in time linear in the text whatever the pattern.
//
// Purpose: word lists and patterns that people bring meet text that a model wrote: backtracking
// could take for ever. RE2 cannot: it walks the text once, with all alternatives side by side.
//
// Syntax: RE2's (https://github.com/google/re2/wiki/Syntax). What is no regular language (back
// references, look-around, recursion, possessive quantifiers) does not compile. Beside PCRE2: $
// without (?m) is the very end of the text, not also before a last line break; \s has no vertical
// tab, \v is nothing else. \d, \w and \b are about ASCII in both; \p{L} is Unicode's.
//
// Thread safety: immutable after Compile(); Find() is safe for concurrent calls. Copies share the
// compiled pattern.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace re2 {
class RE2;
}

namespace plumb::reward {

class LinearRegex {
 public:
  // `error` is empty on success, else says what and where, and the returned value must not be used.
  static LinearRegex Compile(const std::string& pattern, std::string* error);

  // Bytes that are not UTF-8 match as U+FFFD.
  bool Find(std::string_view text) const;

 private:
  std::shared_ptr<const re2::RE2> regex_;
};

}  // namespace plumb::reward
