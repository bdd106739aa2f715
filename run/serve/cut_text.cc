#include "run/serve/cut_text.h"

#include <algorithm>
#include <utility>

namespace plumb::run {

CutText::CutText(const Tokenizer& tokenizer, std::vector<std::string> stop)
    : stop_(std::move(stop)), stream_(tokenizer) {}

std::string CutText::Take(const std::string& text) {
  held_ += text;
  size_t cut = std::string::npos;
  for (const std::string& stop : stop_) {
    const size_t at = held_.find(stop);
    if (at >= cut) continue;
    cut = at;
    found_ = stop;
  }
  if (cut != std::string::npos) {
    held_.resize(cut);
    return std::exchange(held_, {});
  }
  // The longest end of it that a stop string begins with.
  size_t keep = 0;
  for (const std::string& stop : stop_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) keep = n;
    }
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

std::string CutText::Add(int32_t token) { return stopped() ? "" : Take(stream_.Add(token)); }

std::string CutText::End() {
  if (stopped()) return "";
  std::string out = Take(stream_.End());
  return stopped() ? out : out + std::exchange(held_, {});
}

}  // namespace plumb::run
