#include "run/session/recipe/row_check.h"

#include <filesystem>
#include <memory>
#include <system_error>

#include "common/base/error.h"
#include "common/base/files/scratch_folder.h"
#include "configs/paths.h"
#include "learner/loop/offline_loop.h"
#include "learner/offline/sft.h"
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
           (file ? "larger than " + std::to_string(kRowsLookedAt / 1'000'000) + " MB"
            : fs::is_directory(path, none) ? "a folder"
                                           : "no regular file");
  }
  return out;
}

// They pass through a store, for which there may be no room where a run, whose store is in its own
// folder, has some.
std::string CheckPreferences(const Session& session) {
  PreferenceData data;
  try {
    const ScratchFolder scratch(TemporaryFolder() / "plumb-plan");
    const auto store = replay::Store::Open(scratch.path() + "/store");
    data = LoadPreferences(session, *store);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kIo && error.code() != ErrorCode::kNoSpace) throw;
    return std::string("the rows were not looked at: ") + error.what();
  }
  const configs::Config& config = session.config();
  learner::CheckOfflineBatch(config, config.preference.batch,
                             std::ssize(data.train) + std::ssize(data.completions));
  return "";
}

}  // namespace

std::string CheckRows(const Session& session) {
  const configs::Config& config = session.config();
  const std::string unread = NotLookedAt(config);
  if (!unread.empty()) return unread + ": no rows are looked at before a run begins";
  if (config.algorithm.name == configs::AlgorithmName::kSft) {
    const DemonstrationData data = LoadSftData(session);
    PlanLessons(config, session.tokenizer(), data);
    learner::CheckOfflineBatch(config, config.sft.batch, std::ssize(data.train));
  } else if (configs::IsOffline(config)) {
    return CheckPreferences(session);
  } else {
    PromptData prompts = LoadPrompts(session);
    CheckTruths(config, prompts);
    const DemonstrationData data = LoadDemonstrations(session);
    if (config.sft.steps > 0) learner::CheckWarmStartBatch(config.sft, std::ssize(data.train));
  }
  return "";
}

}  // namespace plumb::run
