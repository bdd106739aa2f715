#include "reward/rules/porter_stemmer.h"

#include <span>
#include <utility>
#include <vector>

namespace plumb::reward {
namespace {

bool IsVowelLetter(char c) { return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u'; }

// y is a consonant at the start and behind a vowel; in a run of y's they alternate.
bool IsConsonant(std::string_view word, size_t i) {
  if (IsVowelLetter(word[i])) return false;
  size_t run = 0;  // how many y's end at i
  while (run <= i && word[i - run] == 'y') ++run;
  if (run == 0) return true;
  const bool first = run > i || IsVowelLetter(word[i - run]);
  return run % 2 == 1 ? first : !first;
}

// m of [C](VC){m}[V].
int Measure(std::string_view stem) {
  int m = 0;
  bool before = true;
  for (size_t i = 0; i < stem.size(); ++i) {
    const bool consonant = IsVowelLetter(stem[i]) ? false : stem[i] != 'y' || i == 0 || !before;
    if (i > 0 && consonant && !before) ++m;
    before = consonant;
  }
  return m;
}

bool HasVowel(std::string_view stem) {
  for (size_t i = 0; i < stem.size(); ++i) {
    // The first letter that is no consonant: a y anywhere but at the start has only consonants
    // before it here.
    if (IsVowelLetter(stem[i]) || (stem[i] == 'y' && i > 0)) return true;
  }
  return false;
}

bool EndsInDouble(std::string_view word) {
  const size_t n = word.size();
  return n >= 2 && word[n - 1] == word[n - 2] && IsConsonant(word, n - 1);
}

bool EndsInCvc(std::string_view word) {
  const size_t n = word.size();
  if (n == 2) return !IsConsonant(word, 0) && IsConsonant(word, 1);
  if (n < 3 || !IsConsonant(word, n - 3) || IsConsonant(word, n - 2) || !IsConsonant(word, n - 1))
    return false;
  return word[n - 1] != 'w' && word[n - 1] != 'x' && word[n - 1] != 'y';
}

struct Suffix {
  std::string_view from;
  std::string_view to;
};

// The first suffix that fits decides, whether or not its stem has a measure above `over`.
void Replace(std::string& word, std::span<const Suffix> suffixes, int over) {
  for (const Suffix& s : suffixes) {
    if (!word.ends_with(s.from)) continue;
    const std::string_view stem = std::string_view(word).substr(0, word.size() - s.from.size());
    // -logi counts its l to the stem, -ion goes only behind s or t.
    const std::string_view measured =
        s.from == "logi" ? std::string_view(word).substr(0, stem.size() + 1) : stem;
    if (Measure(measured) <= over) return;
    if (s.from == "ion" && !stem.ends_with('s') && !stem.ends_with('t')) return;
    word.resize(stem.size());
    word += s.to;
    return;
  }
}

void Plural(std::string& w) {
  if (w.ends_with("sses") || (w.ends_with("ies") && w.size() != 4)) {
    w.resize(w.size() - 2);
  } else if (w.ends_with("ies") || (w.ends_with('s') && !w.ends_with("ss"))) {
    w.pop_back();
  }
}

void Past(std::string& w) {
  if (w.ends_with("ied")) {
    w.resize(w.size() - (w.size() == 4 ? 1 : 2));
    return;
  }
  if (w.ends_with("eed")) {
    if (Measure(std::string_view(w).substr(0, w.size() - 3)) > 0) w.pop_back();
    return;
  }
  size_t cut = 0;
  if (w.ends_with("ed") && HasVowel(std::string_view(w).substr(0, w.size() - 2))) {
    cut = 2;
  } else if (w.ends_with("ing") && HasVowel(std::string_view(w).substr(0, w.size() - 3))) {
    cut = 3;
  }
  if (cut == 0) return;
  w.resize(w.size() - cut);
  if (w.ends_with("at") || w.ends_with("bl") || w.ends_with("iz")) {
    w += 'e';
  } else if (EndsInDouble(w)) {
    if (!w.ends_with('l') && !w.ends_with('s') && !w.ends_with('z')) w.pop_back();
  } else if (Measure(w) == 1 && EndsInCvc(w)) {
    w += 'e';
  }
}

constexpr Suffix kStep2[] = {
    {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"},
    {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"}, {"eli", "e"},     {"ousli", "ous"},
    {"ization", "ize"}, {"ation", "ate"},   {"ator", "ate"},  {"alism", "al"},  {"iveness", "ive"},
    {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"},  {"iviti", "ive"}, {"biliti", "ble"},
    {"fulli", "ful"},   {"logi", "log"}};
constexpr Suffix kStep3[] = {{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"},
                             {"ical", "ic"},  {"ful", ""},   {"ness", ""}};
constexpr Suffix kStep4[] = {{"al", ""},   {"ance", ""}, {"ence", ""}, {"er", ""},    {"ic", ""},
                             {"able", ""}, {"ible", ""}, {"ant", ""},  {"ement", ""}, {"ment", ""},
                             {"ent", ""},  {"ion", ""},  {"ou", ""},   {"ism", ""},   {"ate", ""},
                             {"iti", ""},  {"ous", ""},  {"ive", ""},  {"ize", ""}};
constexpr std::pair<std::string_view, std::string_view> kIrregular[] = {
    {"sky", "sky"},        {"skies", "sky"},       {"dying", "die"},        {"lying", "lie"},
    {"tying", "tie"},      {"news", "news"},       {"innings", "inning"},   {"inning", "inning"},
    {"outings", "outing"}, {"outing", "outing"},   {"cannings", "canning"}, {"canning", "canning"},
    {"howe", "howe"},      {"proceed", "proceed"}, {"exceed", "exceed"},    {"succeed", "succeed"}};

}  // namespace

std::string PorterStem(std::string_view word) {
  for (const auto& [form, stem] : kIrregular) {
    if (word == form) return std::string(stem);
  }
  std::string w(word);
  if (w.size() <= 2) return w;
  Plural(w);
  Past(w);
  if (w.ends_with('y') && w.size() > 2 &&
      IsConsonant(std::string_view(w).substr(0, w.size() - 1), w.size() - 2)) {
    w.back() = 'i';
  }
  if (w.ends_with("alli") && Measure(std::string_view(w).substr(0, w.size() - 4)) > 0) {
    w.resize(w.size() - 2);  // and what is left may have a suffix of this step again
  }
  Replace(w, kStep2, 0);
  Replace(w, kStep3, 0);
  Replace(w, kStep4, 1);
  if (w.ends_with('e')) {
    const std::string_view stem = std::string_view(w).substr(0, w.size() - 1);
    const int m = Measure(stem);
    if (m > 1 || (m == 1 && !EndsInCvc(stem))) w.pop_back();
  }
  if (w.ends_with("ll") && Measure(std::string_view(w).substr(0, w.size() - 1)) > 1) w.pop_back();
  return w;
}

}  // namespace plumb::reward
