#include "reward/rules/rule.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "common/base/text.h"
#include "common/text/words.h"

namespace plumb::reward {

void Refuse(const configs::RewardPartConfig& part, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message,
              "reward part '" + part.name + "' (kind " + part.kind + ")");
}

RuleOptions::RuleOptions(const configs::RewardPartConfig& part, std::vector<std::string> known)
    : part_(part) {
  for (const std::string& arg : part.args) {
    const size_t equals = arg.find('=');
    const std::string key = arg.substr(0, equals);
    if (equals == std::string::npos || std::find(known.begin(), known.end(), key) == known.end()) {
      std::string list;
      for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name + "=...";
      Refuse(part, "args has '" + arg + "'; " +
                       (list.empty() ? "this kind takes none" : "it takes " + list));
    }
    values_[key].push_back(arg.substr(equals + 1));
  }
}

std::string RuleOptions::Text(const std::string& name, const std::string& fallback) const {
  const auto it = values_.find(name);
  return it == values_.end() ? fallback : it->second.back();
}

std::vector<std::string> RuleOptions::Texts(const std::string& name) const {
  const auto it = values_.find(name);
  return it == values_.end() ? std::vector<std::string>() : it->second;
}

bool RuleOptions::Flag(const std::string& name, bool fallback) const {
  const std::string text = Text(name, fallback ? "1" : "0");
  if (text != "0" && text != "1") Refuse(part_, name + "=" + text + ": say 0 or 1");
  return text == "1";
}

int64_t RuleOptions::Integer(const std::string& name, int64_t fallback, int64_t low,
                             int64_t high) const {
  const double value = Number(name, static_cast<double>(fallback), static_cast<double>(low),
                              static_cast<double>(high));
  if (value != std::floor(value))
    Refuse(part_, name + "=" + Text(name) + ": has to be a whole number");
  return static_cast<int64_t>(value);
}

double RuleOptions::Number(const std::string& name, double fallback, double low,
                           double high) const {
  if (!has(name)) return fallback;
  const std::string text = Text(name);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= low && value <= high)) {
    std::ostringstream range;
    range << low << " to " << high;
    Refuse(part_, name + "=" + text + ": has to be a number, " + range.str());
  }
  return value;
}

std::string RuleOptions::Choice(const std::string& name,
                                const std::vector<std::string>& choices) const {
  const std::string text = Text(name, choices.front());
  if (std::find(choices.begin(), choices.end(), text) == choices.end()) {
    std::string list;
    for (const std::string& choice : choices) list += (list.empty() ? "" : ", ") + choice;
    Refuse(part_, name + "=" + text + ": say one of " + list);
  }
  return text;
}

std::vector<std::string> RuleOptions::List(const std::string& name) const {
  std::vector<std::string> out;
  for (const std::string& text : Texts(name)) {
    for (size_t at = 0; at <= text.size();) {
      const size_t comma = std::min(text.find(',', at), text.size());
      const std::string_view word = Trim(std::string_view(text).substr(at, comma - at));
      if (!word.empty()) out.emplace_back(word);
      at = comma + 1;
    }
  }
  return out;
}

std::string ReadRuleFile(const configs::RewardPartConfig& part, const std::string& path) {
  constexpr size_t kLimit = 16u << 20;
  std::ifstream file(path, std::ios::binary);
  if (!file) Refuse(part, "cannot read '" + path + "'");
  std::string text(kLimit + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) Refuse(part, "cannot read '" + path + "'");
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kLimit) Refuse(part, "'" + path + "' is longer than 16 MiB");
  return text;
}

}  // namespace plumb::reward
