#include "run/session/overlong.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/record/task_tokens.h"

namespace plumb::run {
namespace {

using configs::OverlongPolicy;

void Erase(Demonstration& d, size_t first, size_t n) {
  const auto from = static_cast<std::ptrdiff_t>(first), to = static_cast<std::ptrdiff_t>(first + n);
  d.tokens.erase(d.tokens.begin() + from, d.tokens.begin() + to);
  d.loss_mask.erase(d.loss_mask.begin() + from, d.loss_mask.begin() + to);
}

size_t PromptTokens(const Demonstration& d) {
  return static_cast<size_t>(std::find(d.loss_mask.begin(), d.loss_mask.end(), 1) -
                             d.loss_mask.begin());
}

}  // namespace

bool Overlong::Fit(std::span<Demonstration* const> sequences, const std::string& where) {
  size_t longest = 0, prompt = SIZE_MAX;
  for (const Demonstration* d : sequences) {
    longest = std::max(longest, d->tokens.size());
    prompt = std::min(prompt, PromptTokens(*d));
  }
  const size_t front = LeadingTaskTokens(sequences[0]->tokens);  // of a task: never cut
  if (longest <= longest_) return true;
  if (policy_ == OverlongPolicy::kError) {
    throw Error(ErrorCode::kInvalidArgument,
                "a row has " + std::to_string(longest) + " tokens, more than " +
                    std::to_string(longest_) + ": raise " + raise_ +
                    " or set data.overlong to drop, left or right",
                where);
  }
  const size_t over = longest - longest_;
  const bool fits = policy_ == OverlongPolicy::kLeft    ? over + front < prompt
                    : policy_ == OverlongPolicy::kRight ? longest_ > prompt
                                                        : false;
  if (fits) {
    for (Demonstration* d : sequences) {
      if (policy_ == OverlongPolicy::kLeft) Erase(*d, front, over);
      if (policy_ == OverlongPolicy::kRight && d->tokens.size() > longest_)
        Erase(*d, longest_, d->tokens.size() - longest_);
    }
  }
  if (!fits || (sequences.size() == 2 && *sequences[0] == *sequences[1])) {
    ++dropped_;
    return false;
  }
  ++cut_;
  return true;
}

std::string Overlong::Describe() const {
  std::string text =
      std::to_string(dropped_) + " longer than " + std::to_string(longest_) + " tokens left out";
  if (policy_ == OverlongPolicy::kLeft || policy_ == OverlongPolicy::kRight)
    text += ", " + std::to_string(cut_) + " cut to that (data.overlong = " + NameOf(policy_) + ")";
  return text;
}

}  // namespace plumb::run
