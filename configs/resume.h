// Which options of a run may be changed when it is resumed, and why the others may not.
//
// Purpose: a run's answers lie in its store, numbered and drawn by some options; its weights and
// optimizer state lie in its checkpoint, shaped by others. An option that neither those nor the
// numbers of rows, steps and answers hang on may change from one life of a run to the next. Every
// option of configs/fields.h stands in one table, with the reason where it is fixed. Thread safety:
// pure functions. Errors: none; lines of the stored text that are no option are passed over.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/config.h"

namespace plumb::configs {

enum class OnResume : uint8_t {
  kMayChange,    // what was sampled, and how it is identified, does not hang on it
  kFixed,        // refused, with the reason
  kWarmStart,    // may change until the warm start is over, then it is fixed
  kNotCompared,  // where the run lies
};

struct ResumeRule {
  OnResume what = OnResume::kFixed;
  std::string why;  // of what is fixed, also later: the reason, as a clause
};

// Of a full key: "run.steps", "reward.parts.0.weight". An unknown one is fixed.
ResumeRule ResumeRuleOf(const std::string& key);

// Every option of the table once, as "run.steps" and "reward.parts.weight".
std::vector<std::string> OptionsWithResumeRule();

// One option that differs. Values as TOML.
struct OptionChange {
  std::string key, before, now;
  std::string why;  // of those that are refused
};

struct RecipeDifference {
  std::vector<OptionChange> changed, refused;  // in the order of the recipe
};

// `stored`: the resolved recipe of the run as ToToml wrote it, also by an earlier version: what it
// does not name had its default.
RecipeDifference CompareForResume(const std::string& stored, const Config& now,
                                  bool warm_start_over);

}  // namespace plumb::configs
