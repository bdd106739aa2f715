#include "run/report/progress.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <cmath>

namespace plumb::run {
namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsBetween(SteadyClock::time_point a, SteadyClock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

int Width(std::FILE* out) {
  winsize size{};
  return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 100;
}

}  // namespace

std::string Duration(double seconds) {
  const auto s = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  char text[32];
  if (s >= 3600)
    std::snprintf(text, sizeof text, "%lldh%02lldm", static_cast<long long>(s / 3600),
                  static_cast<long long>(s / 60 % 60));
  else
    std::snprintf(text, sizeof text, "%lld:%02lld", static_cast<long long>(s / 60),
                  static_cast<long long>(s % 60));
  return text;
}

Progress::Progress(int64_t first_step, int64_t steps, bool terminal, std::FILE* out)
    : steps_(steps),
      terminal_(terminal),
      out_(out),
      first_step_(first_step),
      begin_(SteadyClock::now()),
      last_(begin_) {}

Progress::~Progress() {
  if (drawn_) std::fputc('\n', out_);
  std::fflush(out_);
}

void Progress::Erase() {
  if (drawn_) std::fputs("\r\x1b[K", out_);
  drawn_ = false;
}

void Progress::Line(const std::string& text) {
  Erase();
  std::fprintf(out_, "%s\n", text.c_str());
  std::fflush(out_);
}

void Progress::Phase(const std::string& name) { Line("-- " + name); }

std::string Progress::Describe(int64_t step, const std::map<std::string, double>& metrics) const {
  const auto value = [&](const char* name) {
    const auto found = metrics.find(name);
    return found == metrics.end() ? 0.0 : found->second;
  };
  const int64_t done = step + 1;
  const double elapsed = SecondsBetween(begin_, SteadyClock::now());
  const double each = done > first_step_ ? elapsed / static_cast<double>(done - first_step_) : 0;
  char text[256];
  for (const std::string kind : {"dpo", "rm"}) {
    if (!metrics.count(kind + "/loss")) continue;
    std::snprintf(text, sizeof text,
                  "step %lld/%lld  loss %.4f  accuracy %.2f  margin %.3f  %.0f tok/s  %s left",
                  static_cast<long long>(done), static_cast<long long>(steps_),
                  value((kind + "/loss").c_str()), value((kind + "/accuracy").c_str()),
                  value((kind + "/margin").c_str()), value("perf/tokens_per_s"),
                  Duration(each * static_cast<double>(steps_ - done)).c_str());
    return text;
  }
  // "-": nothing was measured, for no token had a gradient, no answer a score, or none was
  // generated.
  const auto measured = [&](const char* name, int digits) -> std::string {
    if (!metrics.count(name)) return "-";
    char number[32];
    std::snprintf(number, sizeof number, "%.*f", digits, value(name));
    return number;
  };
  const std::string kl =
      measured(metrics.count("objective/kl") ? "objective/kl" : "policy/approx_kl", 4);
  std::snprintf(
      text, sizeof text, "step %lld/%lld  reward %s  kl %s  length %s  %.0f tok/s  %s left",
      static_cast<long long>(done), static_cast<long long>(steps_),
      measured("reward/mean", 3).c_str(), kl.c_str(), measured("response_length/mean", 1).c_str(),
      value("perf/tokens_per_s"), Duration(each * static_cast<double>(steps_ - done)).c_str());
  return text;
}

void Progress::Step(int64_t step, const std::map<std::string, double>& metrics) {
  const auto now = SteadyClock::now();
  if (!started_) {  // the clock of the estimate starts with the first step, not with the warm start
    started_ = true;
    first_step_ = step;
    const auto took = metrics.find("time/step");
    begin_ = now - std::chrono::duration_cast<SteadyClock::duration>(
                       std::chrono::duration<double>(took == metrics.end() ? 0.0 : took->second));
  }
  const bool last = step + 1 >= steps_;
  const std::string text = Describe(step, metrics);
  if (!terminal_) {
    if (last || step == first_step_ || SecondsBetween(last_, now) >= kPlainSeconds) {
      last_ = now;
      Line(text);
    }
    return;
  }
  if (!last && drawn_ && SecondsBetween(last_, now) < 0.1) return;
  last_ = now;
  Erase();
  const int width = Width(out_);
  const int room = width - static_cast<int>(text.size()) - 4;
  std::string bar;
  if (room >= 8) {
    const int cells = std::min(room, 30);
    const auto full = static_cast<int>(static_cast<double>(cells) * static_cast<double>(step + 1) /
                                       static_cast<double>(steps_));
    bar = "[" + std::string(static_cast<size_t>(full), '=') +
          std::string(static_cast<size_t>(cells - full), ' ') + "] ";
  }
  std::fputs((bar + text).substr(0, static_cast<size_t>(width - 1)).c_str(), out_);
  std::fflush(out_);
  drawn_ = true;
}

}  // namespace plumb::run
