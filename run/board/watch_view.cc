#include "run/board/watch_view.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <limits>
#include <optional>
#include <utility>

#include "common/text/columns.h"
#include "common/text/unicode.h"

namespace plumb::run {
namespace {

using Values = std::map<std::string, double, std::less<>>;

// In this order, as many as there is room for.
constexpr std::string_view kCurves[] = {"reward/mean",
                                        "dpo/loss",
                                        "sft/loss",
                                        "eval/accuracy",
                                        "dpo/accuracy",
                                        "objective/kl",
                                        "perf/tokens_per_s",
                                        "policy/entropy",
                                        "dpo/margin",
                                        "optim/grad_norm",
                                        "response_length/mean",
                                        "policy/clip_fraction"};
constexpr int kLeast = 20;  // columns; below it nothing can be said
constexpr int kCurveRows = 3, kMostCurveRows = 8;

std::string Text(const char* format, double value) {
  char text[40];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

bool IsShare(std::string_view key) {
  return key.ends_with("accuracy") || key.ends_with("clip_fraction") || key.ends_with("/clipped");
}

std::string Short(double v, std::string_view key = "") {
  const double a = std::fabs(v);
  if (!std::isfinite(v)) return "-";
  if (IsShare(key)) return Text(a < 0.0995 ? "%.1f %%" : "%.0f %%", 100 * v);
  if (a >= 1e12) return Text("%.1e", v);
  if (a >= 1e9) return Text("%.1fG", v / 1e9);
  if (a >= 1e6) return Text("%.1fM", v / 1e6);
  if (a >= 1e4) return Text("%.1fk", v / 1e3);
  if (v == std::floor(v)) return Text("%.0f", v);
  if (a >= 100) return Text("%.0f", v);
  if (a >= 10) return Text("%.1f", v);
  if (a >= 1) return Text("%.2f", v);
  if (a >= 0.01) return Text("%.3f", v);
  return Text(a >= 0.001 ? "%.4f" : "%.1e", v);
}

std::string Duration(double seconds) {
  const auto s = static_cast<long long>(std::llround(std::max(0.0, std::min(seconds, 1e12))));
  char text[48];
  if (s >= 86400) std::snprintf(text, sizeof text, "%lldd%02lldh", s / 86400, s / 3600 % 24);
  else if (s >= 3600) std::snprintf(text, sizeof text, "%lldh%02lldm", s / 3600, s / 60 % 60);
  else std::snprintf(text, sizeof text, "%lld:%02lld", s / 60, s % 60);
  return text;
}

std::optional<double> Of(const Values& values, std::string_view key) {
  const auto found = values.find(key);
  if (found == values.end()) return std::nullopt;
  return found->second;
}

enum class Ink { kPlain, kSoft, kBold, kGood, kBad, kWarn, kCurve };

class Canvas {
 public:
  Canvas(int width, bool colour) : width_(width), colour_(colour) {}

  std::string Paint(const std::string& text, Ink ink) const {
    if (!colour_ || ink == Ink::kPlain || text.empty()) return text;
    const char* code = ink == Ink::kSoft   ? "2"
                       : ink == Ink::kBold ? "1"
                       : ink == Ink::kGood ? "32"
                       : ink == Ink::kBad  ? "31"
                       : ink == Ink::kWarn ? "33"
                                           : "36";
    return std::string("\x1b[") + code + "m" + text + "\x1b[0m";
  }
  int width() const { return width_; }

  // A title in a line across the window.
  std::string Rule(const std::string& title) const {
    std::string line = Shortened("── " + title + " ", width_);
    for (int at = ColumnsOf(line); at < width_; ++at) line += "─";
    return Paint(line, Ink::kSoft);
  }

 private:
  const int width_;
  const bool colour_;
};

Ink InkOf(RunState state) {
  switch (state) {
    case RunState::kRunning: return Ink::kGood;
    case RunState::kFailed: return Ink::kBad;
    case RunState::kStopped: return Ink::kWarn;
    case RunState::kEnded: break;
  }
  return Ink::kBold;
}

std::string Title(const WatchState& s, const Canvas& canvas) {
  const std::string state = "● " + std::string(NameOf(s.state));
  std::string about = s.algorithm + (s.algorithm.empty() || s.model.empty() ? "" : " · ") + s.model;
  const int room = canvas.width() - ColumnsOf(state) - 1;
  const std::string name = Shortened(PrintableLine(s.name), room);
  about = Shortened(PrintableLine(about), room - ColumnsOf(name) - 2);
  std::string line = canvas.Paint(name, Ink::kBold);
  if (!about.empty()) line += "  " + canvas.Paint(about, Ink::kSoft);
  const int used = ColumnsOf(name) + (about.empty() ? 0 : 2 + ColumnsOf(about));
  line.append(static_cast<size_t>(canvas.width() - used - ColumnsOf(state)), ' ');
  return line + canvas.Paint(state, InkOf(s.state));
}

std::string ProgressLine(const WatchState& s, const Canvas& canvas) {
  const int64_t done = s.step + 1, all = std::max(s.steps, done);
  std::string left = "step " + std::to_string(done) + (all > 0 ? "/" + std::to_string(all) : "");
  std::string right;
  const auto add = [&](const std::string& text) { right += (right.empty() ? "" : " · ") + text; };
  if (all > 0) add(Text("%.0f %%", 100 * static_cast<double>(done) / static_cast<double>(all)));
  if (s.seconds_a_step > 0) add(Short(s.seconds_a_step) + " s a step");
  if (s.state == RunState::kRunning && s.seconds_a_step > 0 && all > done)
    add(Duration(s.seconds_a_step * static_cast<double>(all - done)) + " left");
  else if (s.seconds > 0) add(Duration(s.seconds) + " of training");
  if (s.state == RunState::kRunning && s.step >= 0 &&
      s.idle_s > std::max(30.0, 5 * s.seconds_a_step))
    add("no step for " + Duration(s.idle_s));
  if (s.state == RunState::kRunning && s.step < 0) add("no step yet");
  left = Shortened(left, canvas.width());
  right = Shortened(right, canvas.width() - ColumnsOf(left) - 2);
  const int bar = canvas.width() - ColumnsOf(left) - ColumnsOf(right) - 4;
  if (bar < 6) return Padded(left + (right.empty() ? "" : "  " + right), canvas.width());
  const double share = all > 0 ? static_cast<double>(done) / static_cast<double>(all) : 0;
  const int full = static_cast<int>(std::lround(share * bar));
  std::string filled, empty;
  for (int i = 0; i < bar; ++i) (i < full ? filled : empty) += i < full ? "█" : "░";
  return left + "  " + canvas.Paint(filled, Ink::kCurve) + canvas.Paint(empty, Ink::kSoft) + "  " +
         right;
}

// A curve with its title, `columns` wide and 1 + `rows` high.
std::vector<std::string> Panel(const WatchCurve& curve, const WatchState& s, int columns, int rows,
                               const Canvas& canvas) {
  const auto now = Of(s.newest, curve.key);
  const std::string value = now ? Short(*now, curve.key) : "-";
  float low = std::numeric_limits<float>::max(), high = std::numeric_limits<float>::lowest();
  for (const float v : curve.values) {
    if (!std::isfinite(v)) continue;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  if (now && low <= high) {  // the curve has means: the newest value may lie beyond them
    low = std::min(low, static_cast<float>(*now));
    high = std::max(high, static_cast<float>(*now));
  }
  std::string range;
  if (low <= high)
    range = Short(static_cast<double>(low), curve.key) + ".." +
            Short(static_cast<double>(high), curve.key);
  const std::string name =
      Shortened(PrintableLine(curve.key), std::max(1, columns - ColumnsOf(value) - 1));
  const int room = columns - ColumnsOf(name) - 1 - ColumnsOf(value);
  range = room >= ColumnsOf(range) + 2 ? range : "";
  std::vector<std::string> lines;
  lines.push_back(name + " " + canvas.Paint(value, Ink::kBold) +
                  canvas.Paint(Padded(range, std::max(0, room), /*right=*/true), Ink::kSoft));
  for (const std::string& line : Braille(curve.values, columns, rows))
    lines.push_back(canvas.Paint(line, Ink::kCurve));
  return lines;
}

std::string Joined(const std::vector<std::string>& parts, std::string_view between) {
  std::string out;
  for (const std::string& part : parts) {
    if (part.empty()) continue;
    if (!out.empty()) out += between;
    out += part;
  }
  return out;
}

// What is between the roles now, each as one text; empty without a ring.
std::vector<std::string> RingOf(const WatchState& s) {
  const auto said = [&](std::initializer_list<std::pair<const char*, const char*>> rows) {
    std::vector<std::string> parts;
    for (const auto& [key, what] : rows) {
      if (const auto v = Of(s.newest, key))
        parts.push_back(Short(*v, key) + (*what == '\0' ? "" : std::string(" ") + what));
    }
    return Joined(parts, ", ");
  };
  if (!Of(s.newest, "replay/leased") && !Of(s.newest, "replay/inserts")) return {};
  std::vector<std::string> ring;
  const auto node = [&](const char* name, const std::string& text) {
    ring.push_back(name + (text.empty() ? "" : " " + text));
  };
  node("replay", said({{"replay/held", "leases out"}, {"replay/expired", "ran out"}}));
  node("actor",
       said({{"perf/decode_tokens_per_s", "tokens/s"}, {"response_length/clipped", "cut"}}));
  node("reward", said({{"reward/mean", "mean"}, {"reward/unscored", "unscored"}}));
  node(
      "store",
      said({{"replay/inserts", "groups"}, {"replay/bytes", "bytes"}, {"replay/queue", "waiting"}}));
  node("learner", said({{"offpolicy/staleness_mean", "staleness"},
                        {"time/wait", "s waited"},
                        {"policy/updates", "updates"}}));
  return ring;
}

// Texts one behind the other, broken between them.
std::vector<std::string> Wrapped(const std::vector<std::string>& parts, std::string_view between,
                                 int width, size_t most) {
  std::vector<std::string> lines;
  for (const std::string& part : parts) {
    const std::string text = (lines.empty() ? "" : std::string(between)) + part;
    if (!lines.empty() && ColumnsOf(lines.back()) + ColumnsOf(text) <= width) lines.back() += text;
    else
      lines.push_back(lines.empty()
                          ? part
                          : std::string(between.substr(between.find_first_not_of(' '))) + part);
  }
  if (lines.size() > most) lines.resize(most);
  for (std::string& line : lines) line = Shortened(line, width);
  return lines;
}

std::vector<std::string> DropsOf(const WatchState& s) {
  std::vector<std::pair<double, std::string>> drops;
  for (const auto& [key, value] : s.newest) {
    const bool counts = key.starts_with("dropped/") || key.starts_with("refused/") ||
                        key.starts_with("reopened/") || key.starts_with("reward/failed/") ||
                        key == "replay/expired" || key == "replay/requeued" ||
                        key == "replay/unscored_trajectories" || key == "actor/refused_prompts" ||
                        key == "optim/skipped" || key == "metrics/non_finite";
    if (counts && value > 0) drops.emplace_back(value, PrintableLine(key) + " " + Short(value));
  }
  std::sort(drops.begin(), drops.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  std::vector<std::string> out;
  for (auto& [value, text] : drops) out.push_back(std::move(text));
  if (out.empty()) out.emplace_back("nothing");
  return out;
}

// A text cut into lines of the window, at most so many; the last says whether more follows.
std::vector<std::string> Flowed(const std::string& text, int width, size_t most) {
  std::vector<std::string> lines;
  std::string line;
  int used = 0;
  for (size_t at = 0; at < text.size();) {
    const Character c = DecodeUtf8(text, at);
    const int wide = ColumnsOf(c.code);
    if (used + wide > width) {
      lines.push_back(std::move(line));
      line.clear();
      used = 0;
      if (lines.size() == most) {
        lines.back() = Shortened(lines.back() + "……", width);
        return lines;
      }
    }
    line.append(text, at, c.bytes);
    used += wide;
    at += c.bytes;
  }
  if (!line.empty()) lines.push_back(std::move(line));
  return lines;
}

}  // namespace

int ShownColumns(std::string_view line) {
  int columns = 0;
  while (!line.empty()) {
    const size_t escape = std::min(line.find('\x1b'), line.size());
    columns += ColumnsOf(line.substr(0, escape));
    line.remove_prefix(escape);
    if (!line.empty()) line.remove_prefix(std::min(line.size(), line.find('m') + 1));
  }
  return columns;
}

WatchState LookAt(RunView& run, size_t points) {
  WatchState s;
  s.name = run.name();
  run.WithMetrics([&](const MetricTable& metrics, const RunFacts& facts) {
    s.algorithm = facts.Algorithm();
    s.model = facts.Model();
    s.state = facts.state();
    s.reason = facts.reason();
    s.step = metrics.last_step();
    s.steps = facts.wanted_steps();
    s.seconds = metrics.seconds();
    const double now_s =
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    if (metrics.last_wall_s() > 0) s.idle_s = std::max(0.0, now_s - metrics.last_wall_s());
    const size_t lately = std::min<size_t>(20, metrics.rows());
    if (metrics.rows() >= 2) {
      const auto a = metrics.RowAt(metrics.rows() - std::max<size_t>(2, lately));
      const auto b = metrics.RowAt(metrics.rows() - 1);
      if (b.step > a.step)
        s.seconds_a_step = (b.seconds - a.seconds) / static_cast<double>(b.step - a.step);
    }
    for (const auto& [name, value] : metrics.Newest()) {
      if (value.step >= 0) s.newest[name] = value.value;
    }
    for (const std::string_view key : kCurves) {
      Curve curve = metrics.CurveOf(key, XAxis::kStep, points);
      if (!curve.x.empty()) s.curves.push_back({std::string(key), std::move(curve.mean)});
    }
  });
  run.WithSamples([&](const SampleTable& samples) {
    const nlohmann::ordered_json line = samples.Newest();
    if (!line.is_object()) return;
    const auto text = [&](const char* key) {
      const auto found = line.find(key);
      return found != line.end() && found->is_string() ? found->get<std::string>() : std::string();
    };
    const auto step = line.find("step"), reward = line.find("reward");
    s.sample.step = step != line.end() && step->is_number_integer() ? step->get<int64_t>() : -1;
    s.sample.prompt = text("prompt");
    s.sample.completion = text("completion");
    s.sample.reward = reward != line.end() && reward->is_number()
                          ? "reward " + Short(reward->get<double>())
                          : "no score";
  });
  return s;
}

std::vector<std::string> DrawWatch(const WatchState& s, int width, int height,
                                   const WatchLook& look) {
  std::vector<std::string> lines;
  if (height <= 0 || width <= 0) return lines;
  if (width < kLeast) {
    lines.push_back(Shortened("step " + std::to_string(s.step + 1), width));
    return lines;
  }
  const Canvas canvas(width, look.colour);
  lines.push_back(Title(s, canvas));
  if (height >= 2) lines.push_back(ProgressLine(s, canvas));
  int room = height - static_cast<int>(lines.size()) - 1;  // the last line says how to leave
  const auto put = [&](std::vector<std::string> more) {
    for (std::string& line : more) lines.push_back(std::move(line));
  };
  if (s.state == RunState::kFailed && room > 0) {
    const std::string why = s.reason.empty() ? kNoSummary : s.reason;
    lines.push_back(canvas.Paint(Shortened(PrintableLine(why), width), Ink::kBad));
    --room;
  }

  // What there is to say, then how much of it fits: curves, ring, drops, sample.
  const auto ring = Wrapped(RingOf(s), " → ", width, 3);
  const auto drops = Wrapped(DropsOf(s), " · ", width, 2);
  const bool sampled = s.sample.step >= 0;
  const int columns = std::clamp(width / 40, 1, 4);
  const int each = (width - 2 * (columns - 1)) / columns;
  const int curves = static_cast<int>(s.curves.size());
  const int most = (curves + columns - 1) / columns;  // rows of panels
  int panels = std::min({most, 1, room / (1 + kCurveRows)});
  room -= panels * (1 + kCurveRows);
  const auto take = [&](int need) {
    if (need <= 0 || room < need) return false;
    room -= need;
    return true;
  };
  const bool show_ring = !ring.empty() && take(1 + static_cast<int>(ring.size()));
  const bool show_drops = take(1 + static_cast<int>(drops.size()));
  int sample_lines = sampled && take(3) ? 2 : 0;
  while (panels > 0 && panels < most && take(1 + kCurveRows)) ++panels;
  int rows = kCurveRows;
  while (panels > 0 && rows < kMostCurveRows && take(panels)) ++rows;
  if (sample_lines > 0) {
    const int more = std::min(room, 8);
    room -= more;
    sample_lines += more;
  }

  for (int panel = 0; panel < panels; ++panel) {
    std::vector<std::string> block(static_cast<size_t>(1 + rows));
    for (int column = 0; column < columns; ++column) {
      const int at = panel * columns + column;
      if (at >= curves) break;
      const auto its = Panel(s.curves[static_cast<size_t>(at)], s, each, rows, canvas);
      for (size_t i = 0; i < block.size(); ++i) block[i] += (column > 0 ? "  " : "") + its[i];
    }
    put(std::move(block));
  }
  if (show_ring) {
    lines.push_back(canvas.Rule("ring"));
    put(ring);
  }
  if (show_drops) {
    lines.push_back(canvas.Rule("dropped, refused, asked for again"));
    put(drops);
  }
  if (sample_lines > 0) {
    lines.push_back(canvas.Rule("answer of step " + std::to_string(s.sample.step + 1) + ", " +
                                s.sample.reward));
    const size_t all = static_cast<size_t>(sample_lines);
    auto prompt = Flowed(PrintableLine(s.sample.prompt), width, std::max<size_t>(1, all / 3));
    const size_t used = prompt.size();
    for (std::string& line : prompt) line = canvas.Paint(line, Ink::kSoft);
    put(std::move(prompt));
    put(Flowed(PrintableLine(s.sample.completion), width, all - used));
  }
  if (static_cast<int>(lines.size()) < height) {
    while (static_cast<int>(lines.size()) < height - 1) lines.emplace_back();
    lines.push_back(canvas.Paint(Shortened("q leaves; the run goes on", width), Ink::kSoft));
  }
  return lines;
}

std::string WatchLine(int64_t step, int64_t steps, const Values& values) {
  std::string line =
      "step " + std::to_string(step + 1) + (steps > 0 ? "/" + std::to_string(steps) : "");
  constexpr std::pair<const char*, const char*> kShown[] = {
      {"reward/mean", "reward"},
      {"dpo/loss", "loss"},
      {"sft/loss", "loss"},
      {"eval/accuracy", "held-out accuracy"},
      {"dpo/accuracy", "pairs right"},
      {"objective/kl", "KL"},
      {"policy/entropy", "entropy"},
      {"response_length/mean", "tokens an answer"},
      {"perf/tokens_per_s", "tokens/s"},
      {"time/step", "seconds"}};
  for (const auto& [key, name] : kShown) {
    if (const auto value = Of(values, key))
      line += std::string("  ") + name + " " + Short(*value, key);
  }
  return line;
}

}  // namespace plumb::run
