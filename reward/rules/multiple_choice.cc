#include "reward/rules/multiple_choice.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/base/text.h"
#include "reward/maths/answer.h"
#include "reward/maths/latex_text.h"
#include "reward/maths/math_answer.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;
constexpr size_t kLongest = 16384;

bool IsUpper(char c) { return c >= 'A' && c <= 'Z'; }
// Chinese, Japanese and Korean write letters and characters without a space between them.
bool IsCjk(char c) {
  return static_cast<unsigned char>(c) >= 0xE3 && static_cast<unsigned char>(c) <= 0xED;
}
bool IsWord(char c) { return IsLetter(c) || IsDigit(c) || static_cast<unsigned char>(c) >= 0x80; }
char Upper(char c) { return static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c); }

// A label at the start: "B", "(B)", "B)", "B.", "B:", "option B"; `used` bytes. With `marked`, a
// bracket or stop is needed.
std::optional<char> Label(std::string_view s, char last, bool marked, size_t* used) {
  size_t i = 0;
  while (i < s.size() && (IsSpace(s[i]) || s[i] == '*' || s[i] == '_' || s[i] == '`' ||
                          s[i] == '"' || s[i] == '\'' || s[i] == ':' || s[i] == '$'))
    ++i;
  const std::string head = LowerAscii(s.substr(i, 8));
  for (std::string_view word : {"option ", "choice ", "letter ", "answer ", "\u9009\u9879"}) {
    if (head.starts_with(word)) i += word.size();
  }
  while (i < s.size() && s[i] == '*') ++i;
  const bool open = i < s.size() && (s[i] == '(' || s[i] == '[');
  if (open) ++i;
  if (i >= s.size() || Upper(s[i]) < 'A' || Upper(s[i]) > last) return std::nullopt;
  const char letter = s[i++];
  const char next = i < s.size() ? s[i] : '\0';
  const bool stands = !IsWord(next) || (IsCjk(next) && IsUpper(letter));
  if (!stands || next == '\'') return std::nullopt;
  const bool closed = next == ')' || next == ']';
  if (open && !closed) return std::nullopt;
  if (closed) ++i;
  const bool stop = closed || next == '.' || next == ':' || next == '\0' || next == '*' ||
                    next == ',' || next == '\n';
  if (marked && !stop) return std::nullopt;
  // "a" as an article: lower case counts only with a bracket or stop.
  if (letter >= 'a' && !stop) return std::nullopt;
  if (!closed && (next == '.' || next == ':')) ++i;
  *used = i;
  return Upper(letter);
}

std::string Words(std::string_view s) { return CanonicalWords(PlainLatex(s)); }

// The option whose text this is; none for several.
std::optional<char> ByText(std::string_view text, const std::vector<Choice>& choices) {
  const std::string words = Words(text);
  std::optional<char> found;
  for (const Choice& choice : choices) {
    if (choice.text.empty() || words.empty()) continue;
    if (Words(choice.text) != words && !SameMath(text, choice.text)) continue;
    if (found) return std::nullopt;
    found = choice.letter;
  }
  return found;
}

// The one option whose text stands in the words, at word ends.
std::optional<char> ByMention(std::string_view text, const std::vector<Choice>& choices) {
  const std::string words = Words(text);
  std::optional<char> found;
  for (const Choice& choice : choices) {
    const std::string wanted = Words(choice.text);
    if (wanted.empty()) continue;
    bool here = false;
    for (size_t at = words.find(wanted); at != std::string::npos && !here;
         at = words.find(wanted, at + 1)) {
      const size_t end = at + wanted.size();
      here = (at == 0 || !IsWord(words[at - 1])) && (end == words.size() || !IsWord(words[end]));
    }
    if (!here) continue;
    if (found) return std::nullopt;
    found = choice.letter;
  }
  return found;
}

// A short piece that should be the answer: a label, alone or before text; two labels ("A or B") are
// none.
std::optional<char> Read(std::string_view piece, const std::vector<Choice>& choices, char last) {
  piece = Trim(piece, "$*");
  const std::string unboxed = LastBox(piece).value_or(std::string(piece));
  std::string_view s = unboxed;
  for (std::string_view box : {"\\text", "\\textbf", "\\mathrm", "\\mathbf"}) {
    if (!s.starts_with(box)) continue;
    if (const auto inside = BracedText(s, box.size());
        inside && inside->size() + box.size() + 2 == s.size())
      s = *inside;
  }
  s = Trim(s);
  size_t used = 0;
  if (const auto letter = Label(s, last, false, &used)) {
    std::string_view rest = Trim(s.substr(used), "*.:,;-$");
    if (rest.empty() || rest == ")") return letter;
    const std::string lower = LowerAscii(rest);
    for (std::string_view join : {"or ", "and ", "/", "& ", "\u6216", "\u548C"}) {
      size_t ignored = 0;
      if (lower.starts_with(join) && Label(rest.substr(join.size()), last, false, &ignored))
        return std::nullopt;
    }
    size_t ignored = 0;
    if (s[used - 1] != ':' && s.substr(used).starts_with(",") && Label(rest, last, false, &ignored))
      return std::nullopt;
    // "A dog" may be an option's text rather than option A.
    if (const auto text = ByText(s, choices)) return text;
    if (s.find_first_of("().:,*") == std::string_view::npos && !choices.empty() &&
        !ByText(rest, choices)) {
      const auto mention = ByMention(rest, choices);
      if (mention && mention != letter) return std::nullopt;
    }
    return letter;
  }
  return ByText(s, choices);
}

// Signs of Chinese and Japanese type as ASCII has them.
std::string Narrow(std::string_view text) {
  static constexpr std::pair<std::string_view, std::string_view> kSigns[] = {
      {"\uFF0E", ". "}, {"\uFF1A", ":"}, {"\u3002", ". "}, {"\uFF0C", ","}, {"\u3001", ","},
      {"\uFF08", "("},  {"\uFF09", ")"}, {"\u3010", "["},  {"\u3011", "]"}, {"\uFF1B", ";"},
      {"\uFF01", "!"},  {"\u3000", " "}, {"\u201C", "\""}, {"\u201D", "\""}};
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const std::string_view rest = text.substr(i);
    const auto* sign = static_cast<unsigned char>(text[i]) < 0xE2
                           ? std::end(kSigns)
                           : std::find_if(std::begin(kSigns), std::end(kSigns),
                                          [&](const auto& s) { return rest.starts_with(s.first); });
    if (sign != std::end(kSigns)) {
      out += sign->second;
      i += sign->first.size();
    } else if (rest.size() > 2 && rest.starts_with("\xEF\xBC") && rest[2] >= '\xA1' &&
               rest[2] <= '\xBA') {
      out += static_cast<char>(
          'A' + (static_cast<unsigned char>(rest[2]) - 0xA1));  // U+FF21 ..: wide capitals
      i += 3;
    } else {
      out += text[i++];
    }
  }
  return out;
}

// Behind the last phrase that announces an answer; npos: none.
size_t BehindPhrase(const std::string& lower) {
  static constexpr std::string_view kPhrases[] = {
      "answer is", "answer:", "answer**:", "answer:**", "answer =", "answer would be",
      "answer should be", "answer must be", "answer has to be", "option is", "option would be",
      "choice is", "choice would be", "choice:", "correct option:", "i choose", "i pick",
      "i select", "i'd choose", "i'd pick", "i'd say", "i would choose", "i would pick",
      "i would say", "i will choose", "i'll choose", "go with", "going with", "went with",
      "settle on",
      // Chinese, Japanese, Korean, Spanish, French, German, Portuguese, Italian, Russian.
      "\u7B54\u6848\u662F", "\u7B54\u6848\u4E3A", "\u7B54\u6848:", "\u7B54\u6848\u5E94\u4E3A",
      "\u7B54\u6848\u5E94\u662F", "\u7B54\u6848\u5E94\u8BE5\u662F", "\u7B54\u6848\u9009",
      "\u9009\u62E9", "\u5E94\u9009", "\u6545\u9009", "\u6211\u9009", "\u6240\u4EE5\u9009",
      "\u56E0\u6B64\u9009", "\u7B54\u3048\u306F", "\u6B63\u89E3\u306F",
      "\u7B54\u3048:", "\u6B63\u89E3:", "\uC815\uB2F5\uC740", "\uC815\uB2F5:", "\uB2F5\uC740",
      "respuesta es", "respuesta correcta es", "respuesta:", "r\u00E9ponse est",
      "r\u00E9ponse correcte est", "r\u00E9ponse:", "r\u00E9ponse :", "antwort ist",
      "antwort lautet", "antwort:", "resposta \u00E9", "resposta correta \u00E9",
      "resposta:", "risposta \u00E8", "risposta corretta \u00E8",
      "risposta:", "\u043E\u0442\u0432\u0435\u0442:", "\u041E\u0442\u0432\u0435\u0442:"};
  size_t best = std::string::npos;
  for (std::string_view phrase : kPhrases) {
    const size_t at = lower.rfind(phrase);
    if (at != std::string::npos && (best == std::string::npos || at + phrase.size() > best))
      best = at + phrase.size();
  }
  // "the answer to this question is"
  if (const size_t at = lower.rfind("answer to "); at != std::string::npos) {
    const std::string_view sentence = std::string_view(lower).substr(
        at, std::min<size_t>(lower.find_first_of(".\n", at) - at, 80));
    const size_t is = sentence.find(" is ");
    if (is != std::string_view::npos && (best == std::string::npos || at + is + 4 > best))
      best = at + is + 4;
  }
  return best;
}

// A letter that a sentence calls right: "B is the correct answer".
struct Verdict {
  std::optional<char> letter = {};
  size_t place = 0;  // behind it
};

// The letter that ends at `end`, with the brackets and stars around it; a small one needs brackets.
std::optional<char> LetterBefore(std::string_view text, size_t end, char last) {
  const auto skip = [&](std::string_view signs) {
    while (end > 0 && signs.find(text[end - 1]) != std::string_view::npos) --end;
  };
  skip(" *_`\"'");
  const bool closed = end > 0 && (text[end - 1] == ')' || text[end - 1] == ']');
  if (closed) --end;
  if (end == 0 || Upper(text[end - 1]) < 'A' || Upper(text[end - 1]) > last) return std::nullopt;
  const char letter = text[--end];
  const char before = end == 0 ? ' ' : text[end - 1];
  const bool bracket = closed && (before == '(' || before == '[');
  if (!IsUpper(letter) && !bracket) return std::nullopt;
  return !IsWord(before) || IsCjk(static_cast<char>(end >= 3 ? text[end - 3] : ' '))
             ? std::optional(Upper(letter))
             : std::nullopt;
}

// The last such letter; none where its sentence calls two right, doubts it or denies it.
Verdict LastVerdict(std::string_view text, std::string_view lower, char last) {
  static constexpr std::string_view kVerdicts[] = {
      " is correct",        " is the correct",    " is right",
      " is the right",      " is the answer",     " is the best",
      " is my answer",      " is my choice",      " is the only correct",
      " is the most",       " must be correct",   " must be the",
      " must be right",     " would be correct",  " would be the",
      " should be correct", " should be the",     " seems correct",
      " appears correct",   " fits best",         "\u6B63\u786E",
      "\u662F\u6B63\u786E", "\u662F\u5BF9\u7684", "\u304C\u6B63\u3057\u3044",
      "\u304C\u6B63\u89E3"};
  struct Hit {
    size_t place;
    char letter;
  };
  std::vector<Hit> hits;  // of each phrase the last few
  for (std::string_view verdict : kVerdicts) {
    size_t end = lower.size();
    for (int tries = 0; tries < 8 && end > 0; ++tries) {
      const size_t at = lower.rfind(verdict, end - 1);
      if (at == std::string_view::npos) break;
      if (const auto letter = LetterBefore(text, at, last))
        hits.push_back({at + verdict.size(), *letter});
      end = at;
    }
  }
  if (hits.empty()) return {};
  const Hit latest = *std::max_element(
      hits.begin(), hits.end(), [](const Hit& a, const Hit& b) { return a.place < b.place; });
  const size_t stop =
      latest.place < 2 ? std::string_view::npos : lower.find_last_of(".!?\n;", latest.place - 2);
  const size_t begin = stop == std::string_view::npos ? 0 : stop + 1;
  for (const Hit& hit : hits) {
    if (hit.place > begin && hit.letter != latest.letter) return {};
  }
  const std::string sentence = " " + std::string(lower.substr(begin, latest.place - begin)) + " ";
  for (std::string_view doubt : {" not ", "n't ", " neither ", " nor ", " whether ", " if ",
                                 " unless ", " false that ", " or ", " only when "}) {
    if (sentence.find(doubt) != std::string::npos) return {};
  }
  return {latest.letter, latest.place};
}

// A letter and nothing else.
std::optional<char> Alone(std::string_view s, char last) {
  size_t used = 0;
  const auto letter = Label(s, last, false, &used);
  return letter && Trim(s.substr(used), "*_`.:,;!)]\"'").empty() ? letter : std::nullopt;
}

// "Therefore B", "So, it is (B).": a line, or its last sentence, that is a letter behind words
// which conclude.
std::optional<char> Concluded(std::string_view line, char last) {
  line = Trim(line, "*_`.!");
  const size_t stop = line.rfind(". ");
  if (stop != std::string_view::npos && !Alone(line, last))
    line = Trim(line.substr(stop + 2), "*_`");
  for (bool again = true; again;) {
    again = false;
    line = Trim(line, ",:*_");
    const std::string lower = LowerAscii(line.substr(0, 24));
    for (std::string_view word :
         {"so ",          "so, ",      "so,",           "therefore",  "thus",       "hence",
          "then ",        "finally",   "in conclusion", "conclusion", "ok ",        "ok,",
          "okay",         "it is",     "it's",          "it must be", "must be",    "we get",
          "we have",      "we choose", "that is",       "this is",    "this gives", "\u56E0\u6B64",
          "\u6240\u4EE5", "\u6545",    "\u7EFC\u4E0A",  "\u9009"}) {
      if (!lower.starts_with(word)) continue;
      line.remove_prefix(word.size());
      again = true;
      break;
    }
  }
  return Alone(line, last);
}

}  // namespace

std::vector<Choice> ReadChoices(std::string_view prompt, const std::string& extra_json) {
  std::vector<Choice> out;
  const auto add = [&](const std::string& label, const std::string& text) {
    if (label.size() == 1 && IsLetter(label[0])) {
      out.push_back({Upper(label[0]), Narrow(text)});
    } else {
      out.push_back({static_cast<char>('A' + out.size()), Narrow(text)});
    }
  };
  if (!extra_json.empty()) {
    const Json extra = Json::parse(extra_json, nullptr, false);
    for (const char* column : {"choices", "options"}) {
      if (!extra.is_object() || !extra.contains(column)) continue;
      const Json& value = extra[column];
      const Json& texts = value.is_object() && value.contains("text") ? value["text"] : value;
      const Json labels =
          value.is_object() && value.contains("label") ? value["label"] : Json::array();
      if (texts.is_array() && texts.size() <= 26) {
        for (size_t i = 0; i < texts.size(); ++i) {
          const std::string label =
              i < labels.size() && labels[i].is_string() ? labels[i].get<std::string>() : "";
          add(label, texts[i].is_string() ? texts[i].get<std::string>() : texts[i].dump());
        }
      } else if (texts.is_object() && texts.size() <= 26) {
        for (const auto& [label, text] : texts.items())
          add(label, text.is_string() ? text.get<std::string>() : text.dump());
      }
      if (!out.empty()) return out;
    }
  }
  // Lines of the prompt, A first and then in order.
  const std::string narrow = Narrow(prompt);
  prompt = narrow;
  for (size_t at = 0; at < prompt.size();) {
    const size_t end = std::min(prompt.find('\n', at), prompt.size());
    const std::string_view line = Trim(prompt.substr(at, end - at));
    at = end + 1;
    size_t used = 0;
    if (const auto letter = Label(line, 'Z', true, &used)) {
      if (*letter == 'A') out.clear();
      if (*letter == static_cast<char>('A' + out.size())) {
        out.push_back({*letter, std::string(Trim(line.substr(used), ","))});
      }
    }
  }
  if (out.size() < 2) out.clear();
  return out;
}

std::optional<char> FindChoice(std::string_view whole_text, const std::vector<Choice>& choices,
                               char last) {
  const auto behind = AfterThinking(whole_text);
  if (!behind) return std::nullopt;
  if (const auto marked = ExtractMath(*behind, MathFallback::kNone))
    return Read(Narrow(*marked), choices, last);
  // The end of a long text is where its answer stands.
  const std::string narrow =
      Narrow(behind->substr(behind->size() - std::min(behind->size(), kLongest)));
  const std::string_view text = narrow;
  const std::string lower = LowerAscii(text);
  const size_t phrase = BehindPhrase(lower);
  const Verdict verdict = LastVerdict(text, lower, last);
  if (verdict.letter && (phrase == std::string::npos || verdict.place >= phrase))
    return verdict.letter;
  if (phrase != std::string::npos) {
    std::string_view tail = Trim(text.substr(phrase), ":");
    tail = tail.substr(0, std::min(tail.find('\n'), tail.size()));
    if (const auto found = Read(tail, choices, last)) return found;
    if (const auto found = ByMention(tail, choices)) return found;
    size_t used = 0;
    if (Label(tail, last, false, &used)) return std::nullopt;  // it named two
  }
  if (verdict.letter) return verdict.letter;
  const std::string_view whole = Trim(text);
  size_t used = 0;
  if (const auto letter = Label(whole, last, true, &used)) {
    const std::string_view rest = Trim(whole.substr(used), "*.:,;-");
    if (rest.empty() || whole.find('\n') == std::string_view::npos)
      return Read(whole, choices, last);
  }
  if (const auto found = ByText(whole, choices)) return found;
  // The last line, or the first, is a letter and nothing else.
  if (const auto found = Concluded(whole.substr(whole.rfind('\n') + 1), last)) return found;
  if (const auto found = Alone(whole.substr(0, std::min(whole.find('\n'), whole.size())), last))
    return found;
  // Letters in brackets anywhere: all of them the same.
  std::optional<char> bracketed;
  for (size_t i = 0; i + 2 < text.size(); ++i) {
    if (text[i] != '(' || text[i + 2] != ')' || Upper(text[i + 1]) < 'A' ||
        Upper(text[i + 1]) > last)
      continue;
    if (bracketed && *bracketed != Upper(text[i + 1])) return std::nullopt;
    bracketed = Upper(text[i + 1]);
  }
  if (bracketed) return bracketed;
  return ByMention(text, choices);
}

}  // namespace plumb::reward
