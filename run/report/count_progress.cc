#include "run/report/count_progress.h"

#include <utility>

#include "run/report/progress.h"

namespace plumb::run {
namespace {

constexpr std::chrono::milliseconds kRedraw{200};

}  // namespace

CountProgress::CountProgress(int64_t total, std::string what, bool terminal, std::FILE* out)
    : total_(total),
      what_(std::move(what)),
      terminal_(terminal),
      out_(out),
      begin_(std::chrono::steady_clock::now()),
      last_(begin_) {}

CountProgress::~CountProgress() {
  if (drawn_) std::fputs("\r\x1b[K", out_);
  std::fflush(out_);
}

std::string CountProgress::Text(int64_t done, double seconds, const std::string& more,
                                std::optional<double> share) const {
  std::string text = std::to_string(done) + "/" + std::to_string(total_) + " " + what_;
  const double part = share.value_or(static_cast<double>(done) / static_cast<double>(total_));
  if (part > 0 && done < total_) text += ", " + Duration(seconds / part * (1 - part)) + " left";
  return more.empty() ? text : text + ", " + more;
}

void CountProgress::Show(int64_t done, const std::string& more, std::optional<double> share) {
  const auto now = std::chrono::steady_clock::now();
  const std::chrono::duration<double> since = now - last_, seconds = now - begin_;
  if (terminal_) {
    if (drawn_ && now - last_ < kRedraw) return;
    std::fprintf(out_, "\r\x1b[K%s", Text(done, seconds.count(), more, share).c_str());
    drawn_ = true;
  } else {
    if (since.count() < Progress::kPlainSeconds) return;
    std::fprintf(out_, "%s\n", Text(done, seconds.count(), more, share).c_str());
  }
  std::fflush(out_);
  last_ = now;
}

}  // namespace plumb::run
