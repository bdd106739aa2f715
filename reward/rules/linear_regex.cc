#include "reward/rules/linear_regex.h"

#include <re2/re2.h>

#include "common/text/unicode.h"

namespace plumb::reward {
namespace {

constexpr size_t kMaxPattern = 4096;

}  // namespace

LinearRegex LinearRegex::Compile(const std::string& pattern, std::string* error) {
  error->clear();
  LinearRegex regex;
  if (pattern.size() > kMaxPattern) {
    *error = "has more than " + std::to_string(kMaxPattern) + " bytes";
    return regex;
  }
  RE2::Options options;
  options.set_log_errors(false);
  auto compiled = std::make_shared<const RE2>(pattern, options);
  if (!compiled->ok()) {
    *error = "does not compile as RE2 has it, which linear time needs: " + compiled->error();
  } else {
    regex.regex_ = std::move(compiled);
  }
  return regex;
}

bool LinearRegex::Find(std::string_view text) const {
  std::string repaired;
  if (!IsUtf8(text)) {
    repaired = text;
    RepairUtf8(repaired);
    text = repaired;
  }
  return RE2::PartialMatch(re2::StringPiece(text.data(), text.size()), *regex_);
}

}  // namespace plumb::reward
