#include "run/report/progress.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "run/report/line_wrap.h"

namespace plumb::run {
namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsBetween(SteadyClock::time_point a, SteadyClock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

// Never "-0.000".
std::string Fixed(double value, int digits) {
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  const std::string number = text;
  const bool zero = number.find_first_not_of("-0.") == std::string::npos;
  return zero && number.starts_with('-') ? number.substr(1) : number;
}

// " (25 % cut)": of the answers, at the limit of their length. Few are not none, and nearly all not
// all.
std::string CutShare(double share) {
  if (!(share > 0)) return "";
  const double percent = std::clamp(std::round(share * 100), 1.0, share < 1 ? 99.0 : 100.0);
  return " (" + Fixed(percent, 0) + " % cut)";
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

Progress::Progress(const RunPlan& plan, bool terminal, std::FILE* out)
    : steps_(plan.steps),
      terminal_(terminal),
      out_(out),
      time_left_(plan),
      last_(SteadyClock::now()) {}

Progress::~Progress() {
  if (drawn_) std::fputc('\n', out_);
  std::fflush(out_);
}

void Progress::Erase() {
  if (drawn_) std::fputs("\r\x1b[K", out_);
  drawn_ = step_drawn_ = false;
}

void Progress::Line(const std::string& text) {
  Erase();
  std::fprintf(out_, "%s\n", FitLine(text, out_).c_str());
  std::fflush(out_);
}

void Progress::Phase(const std::string& name) {
  stepped_ = false;
  Line("-- " + name);
}

std::string Progress::Describe(int64_t step, const std::map<std::string, double>& metrics) const {
  const auto value = [&](const char* name) {
    const auto found = metrics.find(name);
    return found == metrics.end() ? 0.0 : found->second;
  };
  const int64_t done = step + 1;
  const std::string head = "step " + std::to_string(done) + "/" + std::to_string(steps_);
  const std::string tail = "  " + Fixed(value("perf/tokens_per_s"), 0) + " tok/s  " +
                           Duration(time_left_.After(done)) + " left";
  if (metrics.count("sft/loss"))
    return head + "  loss " + Fixed(value("sft/loss"), 4) + "  norm " +
           Fixed(value("optim/grad_norm"), 3) + tail;
  for (const std::string kind : {"dpo", "rm"}) {
    if (!metrics.count(kind + "/loss")) continue;
    return head + "  loss " + Fixed(value((kind + "/loss").c_str()), 4) + "  accuracy " +
           Fixed(value((kind + "/accuracy").c_str()), 2) + "  margin " +
           Fixed(value((kind + "/margin").c_str()), 3) + tail;
  }
  // "-": nothing was measured, for no answer has a score, or none was generated.
  const auto measured = [&](const char* name, int digits) -> std::string {
    return metrics.count(name) ? Fixed(value(name), digits) : "-";
  };
  // Only the distance from the reference: without one there is none to show.
  const std::string kl =
      metrics.count("objective/kl") ? "  kl " + Fixed(value("objective/kl"), 4) : "";
  return head + "  reward " + measured("reward/mean", 3) + kl + "  length " +
         measured("response_length/mean", 1) + CutShare(value("response_length/clipped")) + tail;
}

void Progress::Step(int64_t step, const std::map<std::string, double>& metrics) {
  const auto now = SteadyClock::now();
  const bool first = !std::exchange(started_, true);
  stepped_ = true;
  if (const auto took = metrics.find("time/step"); took != metrics.end())
    time_left_.Step(took->second, step);
  const bool last = step + 1 >= steps_;
  const std::string text = Describe(step, metrics);
  if (!terminal_) {
    if (DueOnPlain(last || first)) Line(text);
    return;
  }
  if (!last && drawn_ && SecondsBetween(last_, now) < 0.1) return;
  last_ = now;
  const int room = Width(out_) - static_cast<int>(text.size()) - 4;
  std::string bar;
  if (room >= 8) {
    const int cells = std::min(room, 30);
    const auto full = static_cast<int>(static_cast<double>(cells) * static_cast<double>(step + 1) /
                                       static_cast<double>(steps_));
    bar = "[" + std::string(static_cast<size_t>(full), '=') +
          std::string(static_cast<size_t>(cells - full), ' ') + "] ";
  }
  Draw(bar + text);
  step_drawn_ = true;
}

// Whether a line that others follow is said now; then others wait for their turn.
bool Progress::DueOnPlain(bool at_once) {
  const auto now = SteadyClock::now();
  if (!at_once && SecondsBetween(last_, now) < kPlainSeconds) return false;
  last_ = now;
  return true;
}

void Progress::WarmStart(int64_t done, int64_t of, double loss) {
  const std::string text =
      "warm start " + std::to_string(done) + "/" + std::to_string(of) + "  loss " + Fixed(loss, 4);
  if (!terminal_) {
    if (DueOnPlain(false)) Line("   " + text);
    return;
  }
  const auto now = SteadyClock::now();
  if (drawn_ && SecondsBetween(last_, now) < 0.1) return;
  last_ = now;
  Draw(text);
}

void Progress::Waiting(const std::string& text) {
  if (terminal_) {
    // Steps that take so long are worth a line each.
    if (step_drawn_) std::fputc('\n', out_), drawn_ = false;
    Draw(text);
    last_ = {};
  } else if (!stepped_) {
    Line("   " + text);
  }
}

void Progress::Saving(const std::string& text, int64_t bytes) {
  if (terminal_) {
    Draw(text);
    last_ = {};  // the next step takes its place, however soon it comes
  } else if (bytes >= kSoonSaved) {
    Line(text);
  }
}

void Progress::Draw(const std::string& text) {
  Erase();
  std::fputs(text.substr(0, static_cast<size_t>(Width(out_) - 1)).c_str(), out_);
  std::fflush(out_);
  drawn_ = true;
}

}  // namespace plumb::run
