#include "run/session/recipe/row_check.h"

#include <filesystem>
#include <memory>
#include <system_error>

#include "common/base/files/scratch_folder.h"
#include "configs/paths.h"
#include "replay/store/store.h"
#include "run/session/demonstration_data.h"
#include "run/session/lessons/lesson_plan.h"
#include "run/session/preference_data.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;

// Those of its files that are too large, or stores; generated rows have none.
std::string NotLookedAt(const configs::Config& config) {
  std::string out;
  for (const auto& [option, path] : {std::pair("data.train", config.data.train),
                                     {"data.eval", config.data.eval},
                                     {"sft.data", config.sft.data}}) {
    if (path.empty() || configs::IsGenerated(path)) continue;
    std::error_code none;
    const bool file = fs::is_regular_file(path, none);
    if (file && static_cast<int64_t>(fs::file_size(path, none)) <= kRowsLookedAt) continue;
    out += (out.empty() ? "" : ", ") + (option + (" = \"" + path + "\" is ")) +
           (file ? "larger than " + std::to_string(kRowsLookedAt / 1'000'000) + " MB" : "a folder");
  }
  return out;
}

}  // namespace

std::string CheckRows(const Session& session) {
  const configs::Config& config = session.config();
  const std::string unread = NotLookedAt(config);
  if (!unread.empty()) return unread + ": its rows are looked at when a run begins";
  if (config.algorithm.name == configs::AlgorithmName::kSft) {
    PlanLessons(config, session.tokenizer(), LoadSftData(session));
  } else if (configs::IsOffline(config)) {
    const ScratchFolder scratch(fs::temp_directory_path() / "plumb-plan");
    const auto store = replay::Store::Open(scratch.path() + "/store");
    LoadPreferences(session, *store);
  } else {
    PromptData prompts = LoadPrompts(session);
    CheckTruths(config, prompts);
    LoadDemonstrations(session);
  }
  return "";
}

}  // namespace plumb::run
