// What a run's folder says of it beside its numbers: recipe, state, what ended it, what it dropped.
//
// Purpose: the small files of a run, read again only when they changed. State: running while its
// lock is held; ended with all its steps; stopped before them (Ctrl-C, at once or in order, fewer
// steps than asked); failed when its process left without a summary of its last step. Thread
// safety: one thread. Ownership: nothing is open between calls. Errors: none: what is missing or
// cannot be read is empty; texts are cut at kMaxTextBytes.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "run/session/run_folder.h"

namespace plumb::run {

enum class RunState : uint8_t { kRunning, kEnded, kStopped, kFailed };
std::string_view NameOf(RunState state);  // "running", ...

// Options of a resolved recipe in its order, as {"run.steps", "40"}; tables of a list are numbered:
// "reward.parts.0.kind". Texts without their quotes where they need none.
using Options = std::vector<std::pair<std::string, std::string>>;
Options OptionsOf(std::string_view toml);

// The whole file, or nothing when it is none, is no regular file or has more bytes.
std::string TextOf(const std::string& path, size_t max_bytes);

class RunFacts {
 public:
  static constexpr size_t kMaxTextBytes = size_t{4} << 20;

  explicit RunFacts(std::string folder) : folder_{std::move(folder)} {}

  // Looks again. `last_step`: of the metrics, -1 for none.
  void Refresh(int64_t last_step);

  RunState state() const { return state_; }
  const std::string& reason() const { return reason_; }  // of what failed, as the log has it
  const Options& options() const { return options_; }
  const std::string& recipe() const { return recipe_; }
  std::string Option(std::string_view key) const;  // "" without it
  int64_t wanted_steps() const;                    // 0: not known
  std::string Algorithm() const;
  std::string Model() const;  // the folder's name, or the shape of a new one
  const nlohmann::ordered_json& summary() const { return summary_; }  // null without one
  std::optional<double> AccuracyAfter() const;  // held-out, at the end of a run that is over
  nlohmann::ordered_json Changes() const;       // of changes.jsonl, a list

 private:
  struct Seen {
    int64_t changed_ns = -2;
    int64_t bytes = -1;
    uint64_t inode = 0;  // another file of the same size may be there within a tick of the clock
    bool operator==(const Seen&) const = default;
  };
  static Seen Look(const std::string& path);
  bool Changed(const std::string& path);

  const RunFolder folder_;
  std::map<std::string, Seen> seen_;
  Options options_;
  std::string recipe_, reason_;
  nlohmann::ordered_json summary_;
  bool of_last_life_ = false;  // the summary, and the run is over
  RunState state_ = RunState::kFailed;
};

}  // namespace plumb::run
