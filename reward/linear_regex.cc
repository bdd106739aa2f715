#define PCRE2_CODE_UNIT_WIDTH 8
#include "reward/linear_regex.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "policy_model/files/unicode.h"

namespace plumb::reward {
namespace {

constexpr size_t kMaxPattern = 4096;
constexpr size_t kWorkspace = 3000;  // int's; about 400 states at a time

pcre2_code* CompileRaw(const std::string& pattern, std::string* error) {
  int code = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* raw = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                  PCRE2_UTF, &code, &offset, nullptr);
  if (raw == nullptr) {
    std::array<PCRE2_UCHAR, 256> text{};
    pcre2_get_error_message(code, text.data(), text.size());
    *error = "pattern does not compile at offset " + std::to_string(offset) + ": " +
             reinterpret_cast<const char*>(text.data());
  }
  return raw;
}

// Behind a quantifier, '+' makes it possessive and '?' lazy. `at` stands behind the quantified
// item.
size_t SkipQuantifier(std::string_view p, size_t at, std::string* obstacle) {
  if (at >= p.size()) return at;
  size_t end = at;
  if (p[at] == '*' || p[at] == '+' || p[at] == '?') {
    end = at + 1;
  } else if (p[at] == '{') {
    const size_t close = p.find('}', at);
    if (close == std::string_view::npos || close == at + 1) return at;
    for (size_t i = at + 1; i < close; ++i) {
      if ((p[i] < '0' || p[i] > '9') && p[i] != ',' && p[i] != ' ') return at;
    }
    end = close + 1;
  }
  if (end == at || end >= p.size()) return end;
  if (p[end] == '+') *obstacle = "a possessive quantifier at offset " + std::to_string(end);
  return p[end] == '?' ? end + 1 : end;
}

// `at` stands on '['; returns the place behind the class.
size_t SkipClass(std::string_view p, size_t at) {
  ++at;
  if (at < p.size() && p[at] == '^') ++at;
  if (at < p.size() && p[at] == ']') ++at;
  while (at < p.size() && p[at] != ']') {
    if (p[at] == '\\') {
      at += 2;
    } else if (p[at] == '[' && at + 1 < p.size() &&
               (p[at + 1] == ':' || p[at + 1] == '.' || p[at + 1] == '=')) {
      const size_t close = p.find(std::string{p[at + 1], ']'}, at + 2);
      at = close == std::string_view::npos ? at + 1 : close + 2;
    } else {
      ++at;
    }
  }
  return std::min(at + 1, p.size());
}

// What stands behind "(": nothing special, a group that is fine, or an obstacle.
std::string GroupObstacle(std::string_view p, size_t at) {
  const auto where = [&] { return " at offset " + std::to_string(at); };
  if (p.substr(at).starts_with("(*")) return "a verb or a named assertion" + where();
  if (!p.substr(at).starts_with("(?")) return "";
  const std::string_view rest = p.substr(at + 2);
  if (rest.empty() || rest[0] == ':' || rest[0] == '|' || rest[0] == '\'' || rest[0] == '#')
    return "";
  if (rest.starts_with("=") || rest.starts_with("!") || rest.starts_with("<=") ||
      rest.starts_with("<!") || rest[0] == '*') {
    return "look-around" + where();
  }
  if (rest[0] == '<' || rest.starts_with("P<")) return "";  // a named group
  if (rest[0] == '>') return "an atomic group" + where();
  for (size_t i = 0; i < rest.size(); ++i) {
    const char c = rest[i];
    if (c == ':' || c == ')') return "";
    if (c == 'x') return "free spacing, (?x)," + where();
    if (c != 'i' && c != 'm' && c != 's' && c != 'n' && c != 'U' && c != 'J' && c != '^' &&
        c != '-')
      break;
  }
  return "recursion, a condition or a callout" + where();
}

std::string Repaired(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 16);
  for (size_t i = 0; i < text.size();) {
    const policy_model::Character c = policy_model::DecodeUtf8(text, i);
    if (c.code == policy_model::kNotACharacter) {
      out += "\xEF\xBF\xBD";
    } else {
      out.append(text.substr(i, c.bytes));
    }
    i += c.bytes;
  }
  return out;
}

// Walks over the items of a pattern. Returns the obstacle, or nothing and in `repeated` the places [begin, end) of the single
// items (no groups) that stand before a '+'.
std::string Walk(std::string_view p, std::vector<std::pair<size_t, size_t>>* repeated) {
  if (p.size() > kMaxPattern) return "more than " + std::to_string(kMaxPattern) + " bytes";
  std::string obstacle;
  const auto skip = [&](size_t at, size_t most, auto fits) {
    for (size_t n = 0; n < most && at < p.size() && fits(p[at]); ++n) ++at;
    return at;
  };
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); };
  const auto any = [](char) { return true; };
  for (size_t i = 0; i < p.size();) {
    const size_t begin = i;
    bool single = true;
    if (p[i] == '\\') {
      if (i + 1 >= p.size()) return "";
      const char c = p[i + 1];
      i += 2;
      if (c == 'Q') {
        const size_t close = p.find("\\E", i);
        i = close == std::string_view::npos ? p.size() : close + 2;
        single = false;
      } else if ((c >= '1' && c <= '9') || c == 'g' || c == 'k') {
        return "a back reference at offset " + std::to_string(begin);
      } else if (c == 'K' || c == 'G' || c == 'C' || c == 'X') {
        return std::string("\\") + c + " at offset " + std::to_string(begin);
      } else if (const bool braces = i < p.size() && p[i] == '{';
                 braces && (c == 'p' || c == 'P' || c == 'x' || c == 'o' || c == 'N')) {
        const size_t close = p.find('}', i);  // these braces are no quantifier
        i = close == std::string_view::npos ? p.size() : close + 1;
      } else if (c == 'x') {
        i = skip(i, 2, hex);
      } else if (c == '0') {
        i = skip(i, 2, octal);
      } else if (c == 'c' || c == 'p' || c == 'P') {
        i = skip(i, 1, any);
      }
    } else if (p[i] == '[') {
      i = SkipClass(p, i);
    } else if (p[i] == '(') {
      obstacle = GroupObstacle(p, i);
      if (!obstacle.empty()) return obstacle;
      if (p.substr(i).starts_with("(?#")) {
        const size_t close = p.find(')', i);
        i = close == std::string_view::npos ? p.size() : close + 1;
      } else {
        // The letters of a group's head are no items: their '?' is no quantifier.
        i += p.substr(i).starts_with("(?") ? 2 : 1;
      }
      continue;
    } else {
      single = p[i] != ')';
      i = skip(i + 1, 3, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; });
    }
    if (single && i < p.size() && p[i] == '+') repeated->emplace_back(begin, i);
    i = SkipQuantifier(p, i, &obstacle);
    if (!obstacle.empty()) return obstacle;
  }
  return "";
}

// PCRE2's second matcher counts the rounds of x+, and every count is a state of its own: within another repetition there are as
// many as the text is long. A group is not counted.
std::string WithoutCounting(std::string_view pattern) {
  std::vector<std::pair<size_t, size_t>> repeated;
  Walk(pattern, &repeated);
  std::string out;
  size_t at = 0;
  for (const auto& [begin, end] : repeated) {
    out.append(pattern.substr(at, begin - at)).append("(?:").append(pattern.substr(begin, end - begin)).append(")");
    at = end;
  }
  return out.append(pattern.substr(at));
}

}  // namespace

std::string LinearRegex::Obstacle(std::string_view p) {
  std::vector<std::pair<size_t, size_t>> repeated;
  return Walk(p, &repeated);
}

LinearRegex LinearRegex::Compile(const std::string& pattern, std::string* error) {
  error->clear();
  LinearRegex regex;
  if (const std::string obstacle = Obstacle(pattern); !obstacle.empty()) {
    *error = "has " + obstacle + ", which cannot be matched in linear time";
    return regex;
  }
  // Alone first: "a)(b" must not become right by what is put around it.
  pcre2_code* alone = CompileRaw(pattern, error);
  if (alone == nullptr) return regex;
  pcre2_code_free(alone);
  pcre2_code* raw = CompileRaw("(?s:.*?)(?:" + WithoutCounting(pattern) + ")", error);
  if (raw == nullptr) return regex;
  regex.code_ = std::shared_ptr<const void>(raw, [raw](const void*) { pcre2_code_free(raw); });
  return regex;
}

LinearRegex::Result LinearRegex::Find(std::string_view text) const {
  const std::string subject = Repaired(text);
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  if (match == nullptr) return Result::kGaveUp;
  std::array<int, kWorkspace> workspace;
  const int found =
      pcre2_dfa_match(code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), 0,
                      PCRE2_ANCHORED | PCRE2_DFA_SHORTEST | PCRE2_NO_UTF_CHECK, match.get(),
                      nullptr, workspace.data(), workspace.size());
  if (found >= 0) return Result::kYes;
  return found == PCRE2_ERROR_NOMATCH ? Result::kNo : Result::kGaveUp;
}

}  // namespace plumb::reward
