#include "configs/places/run_start.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "common/base/error.h"
#include "common/base/json/strict_json.h"

namespace plumb::configs {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxIdentityBytes = size_t{1} << 20;
constexpr int kLevelsInARun = 4;  // RUN/checkpoints/step-00000004/model lies three below

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

fs::path WithoutEnd(const std::string& folder) {
  const fs::path full = fs::absolute(folder).lexically_normal();
  return full.has_filename() ? full : full.parent_path();
}

// From where to where a folder went, told by one below it: names that are the same at the end of
// both went along.
std::pair<fs::path, fs::path> WithoutSameEnd(fs::path then, fs::path now) {
  while (then.has_relative_path() && now.has_relative_path() && then.filename() == now.filename()) {
    then = then.parent_path();
    now = now.parent_path();
  }
  return {then, now};
}

}  // namespace

RunStart RunStart::Of(const std::string& run_folder) {
  RunStart start;
  const fs::path now = WithoutEnd(run_folder);
  if (!Exists(now / "run.json")) return start;
  std::string then, began;
  try {
    const auto identity = ReadStrictJson((now / "run.json").string(), kMaxIdentityBytes);
    if (!identity.is_object()) return start;
    began = identity.value(kStartedIn, "");
    then = identity.value(kRunFolder, "");
  } catch (const Error&) {  // who needs its name says so
    return start;
  } catch (const nlohmann::json::exception&) {  // no text
    return start;
  }
  if (fs::path(then).is_absolute() && WithoutEnd(then) != now) {
    const auto [from, to] = WithoutSameEnd(WithoutEnd(then), now);
    start.moved_from_ = from.string();
    start.moved_to_ = to.string();
  }
  if (!fs::path(began).is_absolute()) return start;
  start.folders_.push_back(began);
  const fs::path up = fs::path(began).lexically_relative(then);
  const bool above = !up.empty() && std::all_of(up.begin(), up.end(), [](const fs::path& step) {
    return step == ".." || step == ".";
  });
  if (above && now != then) start.folders_.push_back((now / up).lexically_normal().string());
  return start;
}

std::string RunStart::Find(const std::string& path) const {
  if (path.empty()) return "";
  if (fs::path(path).is_absolute()) return FindMoved(path);
  for (const std::string& folder : folders_) {
    const fs::path place = (fs::path(folder) / path).lexically_normal();
    if (Exists(place)) return place.string();
  }
  return "";
}

std::string RunStart::FindMoved(const std::string& path) const {
  if (moved_from_.empty() || Exists(path)) return "";
  const fs::path below = fs::path(path).lexically_normal().lexically_relative(moved_from_);
  if (below.empty() || *below.begin() == "..") return "";
  const fs::path place = (fs::path(moved_to_) / below).lexically_normal();
  return Exists(place) ? place.string() : "";
}

std::string PlaceNamedInRun(const std::string& named, const std::string& file) {
  if (named.empty() || Exists(named)) return named;
  fs::path folder = WithoutEnd(file);
  for (int level = 0; level <= kLevelsInARun && folder.has_relative_path(); ++level) {
    if (Exists(folder / "run.json")) {
      const std::string there = RunStart::Of(folder.string()).Find(named);
      return there.empty() ? named : there;
    }
    folder = folder.parent_path();
  }
  return named;
}

}  // namespace plumb::configs
