#include "configs/places/run_start.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

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
  if (path.empty() || !fs::path(path).is_relative()) return "";
  for (const std::string& folder : folders_) {
    const fs::path place = (fs::path(folder) / path).lexically_normal();
    if (Exists(place)) return place.string();
  }
  return "";
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
