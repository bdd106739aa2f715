// Whether a pattern occurs in a text, in time linear in the text whatever the pattern.
//
// Purpose: word lists and patterns that people bring meet text that a model wrote: backtracking
// could take for ever. PCRE2's second matcher walks the text once with all alternatives side by
// side: the pattern is compiled behind a lazy ".*" and matched at the start only, so every starting
// place is one more alternative. Cost: text x states^2 of the pattern at most, the states bounded
// by a workspace.
//
// Syntax: PCRE2 with UTF, without what is no regular language or not linear: back references,
// look-around, recursion, conditions, atomic groups and possessive quantifiers, \K \G \C \X,
// callouts and verbs, and (?x).
//
// Thread safety: immutable after Compile(); Find() is safe for concurrent calls. Copies share the
// compiled pattern.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace plumb::reward {

class LinearRegex {
 public:
  // kGaveUp: more states than the workspace holds.
  enum class Result : uint8_t { kNo = 0, kYes = 1, kGaveUp = 2 };

  // `error` is empty on success, else says what and where, and the returned value must not be used.
  static LinearRegex Compile(const std::string& pattern, std::string* error);
  // What in a pattern keeps it from linear time; empty: nothing. The pattern may still fail to
  // compile.
  static std::string Obstacle(std::string_view pattern);

  // Bytes that are not UTF-8 match as U+FFFD.
  Result Find(std::string_view text) const;

 private:
  std::shared_ptr<const void> code_;  // pcre2_code
};

}  // namespace plumb::reward
