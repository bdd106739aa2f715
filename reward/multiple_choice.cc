#include "reward/multiple_choice.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "reward/answer.h"
#include "reward/latex_text.h"
#include "reward/math_answer.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f' || c == '\v'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsWord(char c) { return IsLetter(c) || (c >= '0' && c <= '9') || static_cast<unsigned char>(c) >= 0x80; }
char Upper(char c) { return static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c); }

std::string_view Trim(std::string_view s, std::string_view also = "") {
  const auto drop = [&](char c) { return IsSpace(c) || also.find(c) != std::string_view::npos; };
  while (!s.empty() && drop(s.front())) s.remove_prefix(1);
  while (!s.empty() && drop(s.back())) s.remove_suffix(1);
  return s;
}

std::string Lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

// A label at the start: "B", "(B)", "B)", "B.", "B:", "option B"; `used` bytes. With `marked`, a bracket or stop is needed.
std::optional<char> Label(std::string_view s, char last, bool marked, size_t* used) {
  size_t i = 0;
  while (i < s.size() && (IsSpace(s[i]) || s[i] == '*' || s[i] == '"' || s[i] == '\'' || s[i] == ':' || s[i] == '$')) ++i;
  const std::string head = Lower(s.substr(i, 8));
  for (std::string_view word : {"option ", "choice ", "letter "}) {
    if (head.starts_with(word)) i += word.size();
  }
  while (i < s.size() && s[i] == '*') ++i;
  const bool open = i < s.size() && (s[i] == '(' || s[i] == '[');
  if (open) ++i;
  if (i >= s.size() || Upper(s[i]) < 'A' || Upper(s[i]) > last) return std::nullopt;
  const char letter = s[i++];
  const char next = i < s.size() ? s[i] : '\0';
  if (IsWord(next) || next == '\'') return std::nullopt;
  const bool closed = next == ')' || next == ']';
  if (open && !closed) return std::nullopt;
  if (closed) ++i;
  const bool stop = closed || next == '.' || next == ':' || next == '\0' || next == '*' || next == ',' || next == '\n';
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
    for (size_t at = words.find(wanted); at != std::string::npos && !here; at = words.find(wanted, at + 1)) {
      const size_t end = at + wanted.size();
      here = (at == 0 || !IsWord(words[at - 1])) && (end == words.size() || !IsWord(words[end]));
    }
    if (!here) continue;
    if (found) return std::nullopt;
    found = choice.letter;
  }
  return found;
}

// A short piece that should be the answer: a label, alone or before text; two labels ("A or B") are none.
std::optional<char> Read(std::string_view piece, const std::vector<Choice>& choices, char last) {
  piece = Trim(piece, "$*");
  const std::string unboxed = LastBox(piece).value_or(std::string(piece));
  std::string_view s = unboxed;
  for (std::string_view box : {"\\text", "\\textbf", "\\mathrm", "\\mathbf"}) {
    if (!s.starts_with(box)) continue;
    if (const auto inside = BracedText(s, box.size()); inside && inside->size() + box.size() + 2 == s.size()) s = *inside;
  }
  s = Trim(s);
  size_t used = 0;
  if (const auto letter = Label(s, last, false, &used)) {
    std::string_view rest = Trim(s.substr(used), "*.:,;-$");
    if (rest.empty() || rest == ")") return letter;
    const std::string lower = Lower(rest);
    for (std::string_view join : {"or ", "and ", "/", "& "}) {
      size_t ignored = 0;
      if (lower.starts_with(join) && Label(rest.substr(join.size()), last, false, &ignored)) return std::nullopt;
    }
    size_t ignored = 0;
    if (s[used - 1] != ':' && s.substr(used).starts_with(",") && Label(rest, last, false, &ignored)) return std::nullopt;
    // "A dog" may be an option's text rather than option A.
    if (const auto text = ByText(s, choices)) return text;
    if (s.find_first_of("().:,*") == std::string_view::npos && !choices.empty() && !ByText(rest, choices)) {
      const auto mention = ByMention(rest, choices);
      if (mention && mention != letter) return std::nullopt;
    }
    return letter;
  }
  return ByText(s, choices);
}

}  // namespace

std::vector<Choice> ReadChoices(std::string_view prompt, const std::string& extra_json) {
  std::vector<Choice> out;
  const auto add = [&](const std::string& label, const std::string& text) {
    if (label.size() == 1 && IsLetter(label[0])) {
      out.push_back({Upper(label[0]), text});
    } else {
      out.push_back({static_cast<char>('A' + out.size()), text});
    }
  };
  if (!extra_json.empty()) {
    const Json extra = Json::parse(extra_json, nullptr, false);
    for (const char* column : {"choices", "options"}) {
      if (!extra.is_object() || !extra.contains(column)) continue;
      const Json& value = extra[column];
      const Json& texts = value.is_object() && value.contains("text") ? value["text"] : value;
      const Json labels = value.is_object() && value.contains("label") ? value["label"] : Json::array();
      if (texts.is_array() && texts.size() <= 26) {
        for (size_t i = 0; i < texts.size(); ++i) {
          const std::string label = i < labels.size() && labels[i].is_string() ? labels[i].get<std::string>() : "";
          add(label, texts[i].is_string() ? texts[i].get<std::string>() : texts[i].dump());
        }
      } else if (texts.is_object() && texts.size() <= 26) {
        for (const auto& [label, text] : texts.items()) add(label, text.is_string() ? text.get<std::string>() : text.dump());
      }
      if (!out.empty()) return out;
    }
  }
  // Lines of the prompt, A first and then in order.
  for (size_t at = 0; at < prompt.size();) {
    const size_t end = std::min(prompt.find('\n', at), prompt.size());
    const std::string_view line = Trim(prompt.substr(at, end - at));
    at = end + 1;
    size_t used = 0;
    if (const auto letter = Label(line, 'Z', true, &used)) {
      if (*letter == 'A') out.clear();
      if (*letter == static_cast<char>('A' + out.size())) {
        out.push_back({*letter, std::string(Trim(line.substr(used)))});
      }
    }
  }
  if (out.size() < 2) out.clear();
  return out;
}

std::optional<char> FindChoice(std::string_view text, const std::vector<Choice>& choices, char last) {
  const auto behind = AfterThinking(text);
  if (!behind) return std::nullopt;
  text = *behind;
  if (const auto marked = ExtractMath(text, MathFallback::kNone)) return Read(*marked, choices, last);
  const std::string lower = Lower(text);
  size_t best = std::string::npos;
  for (std::string_view phrase : {"answer is", "answer:", "answer**:", "answer:**", "option is", "choice is", "answer =",
                                  "i choose", "i pick", "answer would be", "correct option:", "correct choice:"}) {
    const size_t at = lower.rfind(phrase);
    if (at != std::string::npos && (best == std::string::npos || at + phrase.size() > best)) best = at + phrase.size();
  }
  if (best != std::string::npos) {
    std::string_view tail = Trim(text.substr(best), ":");
    tail = tail.substr(0, std::min(tail.find('\n'), tail.size()));
    if (const auto found = Read(tail, choices, last)) return found;
    if (const auto found = ByMention(tail, choices)) return found;
    size_t used = 0;
    if (Label(tail, last, false, &used)) return std::nullopt;  // it named two
  }
  const std::string_view whole = Trim(text);
  size_t used = 0;
  if (const auto letter = Label(whole, last, true, &used)) {
    const std::string_view rest = Trim(whole.substr(used), "*.:,;-");
    if (rest.empty() || whole.find('\n') == std::string_view::npos) return Read(whole, choices, last);
  }
  if (const auto found = ByText(whole, choices)) return found;
  // Letters in brackets anywhere: all of them the same.
  std::optional<char> bracketed;
  for (size_t i = 0; i + 2 < text.size(); ++i) {
    if (text[i] != '(' || text[i + 2] != ')' || Upper(text[i + 1]) < 'A' || Upper(text[i + 1]) > last) continue;
    if (bracketed && *bracketed != Upper(text[i + 1])) return std::nullopt;
    bracketed = Upper(text[i + 1]);
  }
  if (bracketed) return bracketed;
  return ByMention(text, choices);
}

}  // namespace plumb::reward
