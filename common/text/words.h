// Text cut into words and sentences, and lower case: what the text rules share.
//
// Thread safety: pure functions. Cost: linear in the text. Views point into the text they were cut
// from. Bytes that are not UTF-8 count as characters that are no letters.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace plumb {

// Cut at ASCII white space.
std::vector<std::string_view> SpacedWords(std::string_view s);

// Lower case of every letter that has one of a single character (Unicode), with the exceptions that
// Python's str.lower() makes: U+0130 becomes i and U+0307, and a capital sigma at the end of a word
// becomes U+03C2.
std::string LowerUnicode(std::string_view s);

// Cut where Python's str.split() cuts: Unicode white space and the separators U+001C to U+001F.
std::vector<std::string_view> UnicodeSpacedWords(std::string_view s);
bool IsUnicodeSpace(char32_t code);

// Runs of letters, numbers and combining marks, apostrophes inside included; a Han, Hiragana or
// Katakana character is a word of its own. Punctuation separates. Case is kept.
std::vector<std::string_view> LetterWords(std::string_view s);

// Sentences: cut behind . ! ? (and their Chinese and Japanese forms) before white space or the end,
// and at line breaks; a full stop between digits cuts nothing. Trimmed, none empty.
std::vector<std::string_view> Sentences(std::string_view s);

// Numbers words so that equal words have equal numbers: n-grams then compare integers. Views must
// outlive it.
class Vocabulary {
 public:
  int32_t Id(std::string_view word);
  std::vector<int32_t> Ids(const std::vector<std::string_view>& words);
  size_t size() const { return ids_.size(); }

 private:
  std::unordered_map<std::string_view, int32_t> ids_;
};

// Numbers n-grams over several texts at once: Add() each, then compare numbers.
class NgramTable {
 public:
  explicit NgramTable(int n) : n_(n) {}
  // Number of the n-gram at each place of `ids`; empty with fewer than n.
  std::vector<int32_t> Add(const std::vector<int32_t>& ids);
  size_t size() const { return size_; }  // different n-grams so far

 private:
  const int n_;
  size_t size_ = 0;
  // Level k maps (number of the k-gram before, next id) to the number of the (k+1)-gram.
  std::vector<std::unordered_map<uint64_t, int32_t>> levels_;
};

}  // namespace plumb
