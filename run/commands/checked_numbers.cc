#include "run/commands/checked_numbers.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <system_error>
#include <utility>

#include "common/base/nearest.h"

namespace plumb::run {
namespace {

std::string Shown(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", v);
  return text;
}

CLI::Validator Checked(std::string wanted, std::function<bool(const std::string&)> takes) {
  return CLI::Validator(
      [wanted = std::move(wanted), takes = std::move(takes)](const std::string& text) {
        return takes(text) ? std::string() : "is " + text + ": it takes " + wanted;
      },
      "");
}

// A finite number and nothing behind it.
bool ReadNumber(const std::string& text, double& value) {
  char* end = nullptr;
  value = std::strtod(text.c_str(), &end);
  return end != text.c_str() && *end == '\0' && std::isfinite(value);
}

}  // namespace

CLI::Validator WholeNumber(int64_t least, uint64_t most) {
  const bool open = most >= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  return Checked("a whole number from " + std::to_string(least) + (open ? ", of 64 bits" : " to ") +
                     (open ? "" : std::to_string(most)),
                 [least, most](const std::string& text) {
                   const char *begin = text.data(), *end = begin + text.size();
                   uint64_t value = 0;
                   const auto [at, error] = std::from_chars(begin, end, value);
                   if (error == std::errc() && at == end)
                     return value <= most && (least <= 0 || value >= static_cast<uint64_t>(least));
                   int64_t negative = 0;
                   const auto [to, problem] = std::from_chars(begin, end, negative);
                   return problem == std::errc() && to == end && negative < 0 && negative >= least;
                 });
}

CLI::Validator NumberFrom(double least, double most) {
  return Checked("a number from " + Shown(least) + (std::isinf(most) ? "" : " to " + Shown(most)),
                 [least, most](const std::string& text) {
                   double value = 0;
                   return ReadNumber(text, value) && value >= least && value <= most;
                 });
}

CLI::Validator NumberAbove(double bound) {
  return Checked("a number above " + Shown(bound), [bound](const std::string& text) {
    double value = 0;
    return ReadNumber(text, value) && value > bound;
  });
}

CLI::Validator OneOf(std::vector<std::string> words) {
  return CLI::Validator(
      [words = std::move(words)](const std::string& text) {
        if (std::find(words.begin(), words.end(), text) != words.end()) return std::string();
        std::string known;
        for (const std::string& word : words) known += (known.empty() ? "" : " | ") + word;
        const std::string meant = DidYouMean(text, words);
        return "is '" + text + "'" + meant + (meant.empty() ? ": it takes " : " It takes ") + known;
      },
      "");
}

}  // namespace plumb::run
