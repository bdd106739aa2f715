#include "run/board/run_facts.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "common/base/text.h"
#include "run/session/interrupt.h"
#include "run/session/run_lock.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kLogTail = size_t{64} << 10;

// The end of a file.
std::string TailOf(const std::string& path, size_t max_bytes) {
  struct stat s {};
  if (stat(path.c_str(), &s) != 0 || !S_ISREG(s.st_mode)) return "";
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return "";
  const off_t begin = std::max<off_t>(0, s.st_size - static_cast<off_t>(max_bytes));
  std::string text(static_cast<size_t>(s.st_size - begin), '\0');
  size_t done = 0;
  for (ssize_t n; done < text.size() && (n = pread(file, text.data() + done, text.size() - done,
                                                   begin + static_cast<off_t>(done))) > 0;)
    done += static_cast<size_t>(n);
  close(file);
  text.resize(done);
  return text;
}

// What the log says of the end: the last line that names an error.
std::string ReasonIn(const std::string& log) {
  constexpr std::string_view kEnded = "ended by an error: ";
  const size_t at = log.rfind(kEnded);
  if (at == std::string::npos) return "";
  const size_t begin = at + kEnded.size();
  return log.substr(begin, std::min(log.find('\n', begin), begin + 400) - begin);
}

std::string Unquoted(std::string_view value) {
  const bool quoted = value.size() >= 2 && (value.front() == '"' || value.front() == '\'') &&
                      value.back() == value.front();
  if (quoted && value.find('\\') == std::string_view::npos)
    return std::string(value.substr(1, value.size() - 2));
  return std::string(value);
}

int64_t NumberOf(std::string_view text) {
  int64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

int64_t IntegerIn(const Json& object, const char* key, int64_t otherwise) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<int64_t>() : otherwise;
}

}  // namespace

std::string_view NameOf(RunState state) {
  switch (state) {
    case RunState::kRunning: return "running";
    case RunState::kEnded: return "ended";
    case RunState::kStopped: return "stopped";
    case RunState::kFailed: break;
  }
  return "failed";
}

std::string TextOf(const std::string& path, size_t max_bytes) {
  std::string text = TailOf(path, max_bytes + 1);
  if (text.size() > max_bytes) text.clear();
  return text;
}

Options OptionsOf(std::string_view toml) {
  Options options;
  std::string section;
  std::map<std::string, int> tables;  // of lists, how many so far
  while (!toml.empty()) {
    const size_t end = toml.find('\n');
    const std::string_view line = Trim(toml.substr(0, end));
    toml.remove_prefix(end == std::string_view::npos ? toml.size() : end + 1);
    if (line.empty() || line.front() == '#') continue;
    const size_t equal = line.find('=');
    if (line.starts_with("[[") && line.ends_with("]]")) {
      const std::string name(Trim(line.substr(2, line.size() - 4)));
      section = name + "." + std::to_string(tables[name]++);
    } else if (line.front() == '[' && line.back() == ']' && equal == std::string_view::npos) {
      section = Trim(line.substr(1, line.size() - 2));
    } else if (equal != std::string_view::npos) {
      const std::string key(Trim(line.substr(0, equal)));
      options.emplace_back(section.empty() ? key : section + "." + key,
                           Unquoted(Trim(line.substr(equal + 1))));
    }
  }
  return options;
}

RunFacts::Seen RunFacts::Look(const std::string& path) {
  struct stat s {};
  if (stat(path.c_str(), &s) != 0) return {-1, -1, 0};
  return {int64_t{s.st_mtim.tv_sec} * 1'000'000'000 + s.st_mtim.tv_nsec, s.st_size, s.st_ino};
}

bool RunFacts::Changed(const std::string& path) {
  const Seen now = Look(path);
  Seen& before = seen_[path];
  if (now == before) return false;
  before = now;
  return true;
}

void RunFacts::Refresh(int64_t last_step) {
  if (Changed(folder_.config())) {
    recipe_ = TextOf(folder_.config(), kMaxTextBytes);
    options_ = OptionsOf(recipe_);
  }
  if (Changed(folder_.summary())) {
    summary_ = Json::parse(TextOf(folder_.summary(), kMaxTextBytes), nullptr, false);
    if (!summary_.is_object()) summary_ = nullptr;
  }
  const std::string log = folder_.logs() + "/train.log";
  of_last_life_ = false;
  if (RunLock::IsHeld(folder_.path)) {
    state_ = RunState::kRunning;
    reason_.clear();
    seen_.erase(log);
    return;
  }
  // That of an earlier life does not speak of the last one.
  of_last_life_ = summary_.is_object() && IntegerIn(summary_, "steps", 0) >= last_step + 1 &&
                  Look(folder_.summary()).changed_ns >= Look(folder_.metrics()).changed_ns;
  if (!of_last_life_) {
    if (Look(folder_.path + "/" + kStoppedMark).bytes >= 0) {
      state_ = RunState::kStopped;
      reason_.clear();
      seen_.erase(log);
      return;
    }
    state_ = RunState::kFailed;
    if (Changed(log)) reason_ = ReasonIn(TailOf(log, kLogTail));
    if (reason_.empty() && summary_.is_null() && Look(folder_.summary()).bytes >= 0)
      reason_ = "summary.json cannot be read";
    return;
  }
  reason_.clear();
  seen_.erase(log);
  const auto early = summary_.find("stopped_early");
  const bool stopped = early != summary_.end() && early->is_boolean() && early->get<bool>();
  const bool fewer = IntegerIn(summary_, "steps", 0) < IntegerIn(summary_, "wanted_steps", 0);
  state_ = stopped || fewer ? RunState::kStopped : RunState::kEnded;
}

std::string RunFacts::Option(std::string_view key) const {
  for (const auto& [name, value] : options_) {
    if (name == key) return value;
  }
  return "";
}

int64_t RunFacts::wanted_steps() const {
  const int64_t asked = NumberOf(Option("run.steps"));
  return asked > 0 || !summary_.is_object() ? asked : IntegerIn(summary_, "wanted_steps", 0);
}

std::string RunFacts::Algorithm() const { return Option("algorithm.name"); }

std::string RunFacts::Model() const {
  std::string path = Option("model.path");
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  if (!path.empty()) return std::filesystem::path(path).filename().string();
  const std::string layers = Option("model.layers"), hidden = Option("model.hidden");
  return layers.empty() || hidden.empty() ? "" : "new, " + layers + " x " + hidden;
}

std::optional<double> RunFacts::AccuracyAfter() const {
  if (!of_last_life_) return std::nullopt;
  const Json* at = &summary_;
  for (const char* key : {"eval", "after", "accuracy"}) {
    const auto found = at->is_object() ? at->find(key) : at->end();
    if (found == at->end()) return std::nullopt;
    at = &*found;
  }
  return at->is_number() ? std::optional(at->get<double>()) : std::nullopt;
}

Json RunFacts::Changes() const {
  Json list = Json::array();
  std::string_view text;
  const std::string all = TextOf(folder_.changes(), kMaxTextBytes);
  for (text = all; !text.empty();) {
    const size_t end = std::min(text.find('\n'), text.size());
    Json line = Json::parse(text.substr(0, end), nullptr, false);
    if (line.is_object()) list.push_back(std::move(line));
    text.remove_prefix(std::min(text.size(), end + 1));
  }
  return list;
}

}  // namespace plumb::run
