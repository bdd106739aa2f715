#include "run/board/watch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/text/columns.h"
#include "run/board/run_view.h"
#include "run/board/watch_view.h"

namespace plumb::run {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTick{50};

bool Stopped(const WatchOptions& options) { return options.stop != nullptr && *options.stop; }

std::chrono::milliseconds Period(const WatchOptions& options) {
  return std::chrono::milliseconds(static_cast<int64_t>(1000 / std::max(0.1, options.hertz)));
}

std::string NameOfFolder(const std::string& folder) {
  std::error_code none;
  std::filesystem::path path = std::filesystem::absolute(folder, none).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

// The terminal as a picture: another screen, no cursor, keys at once.
class Screen {
 public:
  Screen() {
    keys_ = isatty(STDIN_FILENO) != 0 && tcgetattr(STDIN_FILENO, &before_) == 0;
    Enter();
  }
  ~Screen() { Leave(); }
  Screen(const Screen&) = delete;

  void Enter() {
    if (keys_) {
      termios raw = before_;
      // Ctrl-C comes as a key: a signal could end the program before the terminal is itself again.
      raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG);
      raw.c_cc[VMIN] = 0;
      raw.c_cc[VTIME] = 0;
      tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    Write("\x1b[?1049h\x1b[?25l\x1b[2J");
    shown_.clear();
  }
  void Leave() {
    Write("\x1b[0m\x1b[?25h\x1b[?1049l");
    if (keys_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }

  bool alive() const { return alive_; }

  void Show(const std::vector<std::string>& lines, int width, int height) {
    std::string frame = "\x1b[H";
    for (size_t i = 0; i < lines.size(); ++i) {
      if (i > 0) frame += "\r\n";
      frame += lines[i];
      // where the line is full the cursor waits on its last character, which would be erased
      if (ShownColumns(lines[i]) < width) frame += "\x1b[K";
    }
    if (static_cast<int>(lines.size()) < height) frame += "\x1b[J";
    if (frame == shown_) return;
    Write(frame);
    shown_ = std::move(frame);
  }

  // The next key within `wait`; 0: none.
  char Key(std::chrono::milliseconds wait) {
    pollfd item{keys_ ? STDIN_FILENO : -1, POLLIN, 0};
    const int n = poll(&item, 1, static_cast<int>(wait.count()));
    if (n <= 0) return 0;
    char key = 0;
    if (read(STDIN_FILENO, &key, 1) == 1) return key;
    if ((item.revents & (POLLHUP | POLLERR)) != 0) alive_ = false;
    return 0;
  }

 private:
  void Write(const std::string& text) {
    for (size_t done = 0; done < text.size() && alive_;) {
      const ssize_t n = write(STDOUT_FILENO, text.data() + done, text.size() - done);
      if (n >= 0) done += static_cast<size_t>(n);
      else if (errno == EAGAIN) std::this_thread::sleep_for(kTick);
      else if (errno != EINTR) alive_ = false;
    }
  }

  termios before_{};
  bool keys_ = false, alive_ = true;
  std::string shown_;
};

constexpr char kCtrlC = 3, kCtrlD = 4, kCtrlZ = 26;

}  // namespace

void WatchOnTerminal(const std::string& folder, const WatchOptions& options) {
  RunView run(NameOfFolder(folder), folder, std::chrono::milliseconds(50));
  WatchLook look;
  const char* none = std::getenv("NO_COLOR");
  look.colour = none == nullptr || *none == '\0';
  Screen screen;
  winsize size{};
  WatchState state;
  auto next = SteadyClock::now();
  while (!Stopped(options) && screen.alive()) {
    winsize now{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &now) != 0 || now.ws_col == 0) now = {24, 80, 0, 0};
    const bool resized = now.ws_col != size.ws_col || now.ws_row != size.ws_row;
    size = now;
    if (SteadyClock::now() >= next) {
      // two values to a character of the widest curve
      state = LookAt(run, 2 * static_cast<size_t>(size.ws_col));
      next = SteadyClock::now() + Period(options);
      screen.Show(DrawWatch(state, size.ws_col, size.ws_row, look), size.ws_col, size.ws_row);
    } else if (resized) {
      screen.Show(DrawWatch(state, size.ws_col, size.ws_row, look), size.ws_col, size.ws_row);
    }
    const char key = screen.Key(kTick);
    if (key == 'q' || key == 'Q' || key == kCtrlC || key == kCtrlD) break;
    if (key == kCtrlZ) {
      screen.Leave();
      raise(SIGTSTP);
      screen.Enter();
      size = {};
    }
  }
}

void WatchAsLines(const std::string& folder, const WatchOptions& options, std::FILE* out) {
  RunView run(NameOfFolder(folder), folder, std::chrono::milliseconds(0));
  int64_t shown = -1;
  bool first = true;
  uint64_t revision = 0;
  for (;;) {
    std::string text;
    RunState state = RunState::kFailed;
    std::string reason;
    run.WithMetrics([&](const MetricTable& metrics, const RunFacts& facts) {
      state = facts.state();
      reason = facts.reason();
      if (!first && metrics.revision() != revision && metrics.last_step() < shown) {
        text += "-- goes on from step " + std::to_string(metrics.last_step() + 2) + "\n";
        shown = metrics.last_step();
      }
      revision = metrics.revision();
      // of what was there before, the last step
      if (first && metrics.rows() > 0) shown = metrics.RowAt(metrics.rows() - 1).step - 1;
      first = false;
      size_t from = metrics.rows();
      while (from > 0 && metrics.RowAt(from - 1).step > shown) --from;
      for (size_t row = from; row < metrics.rows(); ++row) {
        std::map<std::string, double, std::less<>> values;
        for (size_t column = 0; column < metrics.columns(); ++column) {
          const float value = metrics.At(column, row);
          if (std::isfinite(value)) values[metrics.NameOf(column)] = static_cast<double>(value);
        }
        shown = metrics.RowAt(row).step;
        text += WatchLine(shown, facts.wanted_steps(), values) + "\n";
      }
    });
    if (state != RunState::kRunning) {
      text += NameOf(state);
      if (state == RunState::kFailed)
        text += ": " + (reason.empty() ? kNoSummary : PrintableLine(reason));
      text += "\n";
    }
    if (std::fputs(text.c_str(), out) < 0 || std::fflush(out) != 0)
      ThrowFileError(errno, "cannot write", "standard output");
    if (state != RunState::kRunning) return;
    for (auto left = Period(options); left.count() > 0; left -= kTick) {
      if (Stopped(options)) return;
      std::this_thread::sleep_for(kTick);
    }
    if (Stopped(options)) return;
  }
}

}  // namespace plumb::run
