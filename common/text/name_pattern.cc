#include "common/text/name_pattern.h"

#include <re2/re2.h>

#include <algorithm>
#include <utility>

#include "common/base/error.h"

namespace plumb {
namespace {

constexpr int64_t kMostMemory = int64_t{1} << 20;  // of one compiled pattern

re2::StringPiece Piece(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

bool IsPlainName(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
}

NamePattern::NamePattern(std::string text, Where where, const std::string& option)
    : text_(std::move(text)), where_(where) {
  if (text_.empty()) throw Error(ErrorCode::kInvalidArgument, "an empty pattern", option);
  if (where_ != Where::kEnd && IsPlainName(text_)) return;
  re2::RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(kMostMemory);
  const std::string regex = where_ == Where::kEnd ? "(?:.*\\.)?(?:" + text_ + ")" : text_;
  // By itself first: "a)(b" would be a regular expression within the parentheses.
  const re2::RE2 alone(Piece(text_), options);
  auto compiled = std::make_shared<const re2::RE2>(Piece(regex), options);
  if (!alone.ok() || !compiled->ok()) {
    throw Error(ErrorCode::kInvalidArgument,
                "'" + text_ + "' is no regular expression that takes linear time (RE2: " +
                    (alone.ok() ? compiled->error() : alone.error()) +
                    "); look-aheads and back-references are none: name the modules instead",
                option);
  }
  regex_ = std::move(compiled);
}

bool NamePattern::Matches(std::string_view name) const {
  if (!regex_)
    return where_ == Where::kAll ? name == text_ : name.find(text_) != std::string_view::npos;
  return where_ == Where::kAnywhere ? re2::RE2::PartialMatch(Piece(name), *regex_)
                                    : re2::RE2::FullMatch(Piece(name), *regex_);
}

}  // namespace plumb
