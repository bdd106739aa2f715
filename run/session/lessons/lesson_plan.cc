#include "run/session/lessons/lesson_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "common/base/error.h"
#include "configs/pattern_number.h"

namespace plumb::run {
namespace {

constexpr std::string_view kBrackets = "()[]{}";

std::string SourcesThatThereAre(const DemonstrationData& data) {
  const std::set<std::string> names(data.sources.begin(), data.sources.end());
  std::string list;
  for (const std::string& name : names) {
    if (!name.empty()) list += (list.empty() ? "" : ", ") + name;
  }
  return list.empty() ? "no row has a column \"source\"" : "there are: " + list;
}

learner::Curriculum MakeCurriculum(const configs::Config& config, const DemonstrationData& data) {
  std::map<std::string, std::vector<uint32_t>> rows;
  for (size_t i = 0; i < data.sources.size(); ++i)
    rows[data.sources[i]].push_back(static_cast<uint32_t>(i));
  std::vector<learner::Curriculum::Phase> phases;
  for (const auto& [source, share] :
       configs::ReadPatternNumbers(config.sft.curriculum, "sft.curriculum")) {
    if (!rows.contains(source)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "there is no demonstration of the source \"" + source + "\" to train on; " +
                      SourcesThatThereAre(data),
                  "sft.curriculum");
    }
    phases.push_back({.name = source,
                      .end = std::llround(share * static_cast<double>(config.run.steps)),
                      .rows = rows[source]});
  }
  return learner::Curriculum(std::move(phases));
}

// [S]: 1 where a token has a bracket; empty where the brackets of what is learned do not match.
std::vector<uint8_t> BracketsOf(const Demonstration& d, const Tokenizer& tokenizer) {
  std::vector<uint8_t> out(d.tokens.size());
  std::string learned;
  for (size_t i = 0; i < d.tokens.size(); ++i) {
    if (d.loss_mask[i] == 0 || tokenizer.IsSpecial(d.tokens[i])) continue;
    const std::string_view bytes = tokenizer.TokenBytes(d.tokens[i]);
    out[i] = bytes.find_first_of(kBrackets) != std::string_view::npos;
    learned += bytes;
  }
  if (!BracketsMatch(learned)) out.clear();
  return out;
}

}  // namespace

bool BracketsMatch(std::string_view text) {
  std::string open;
  for (const char c : text) {
    const size_t which = kBrackets.find(c);
    if (which == std::string_view::npos) continue;
    if (which % 2 == 0) {
      open.push_back(c);
    } else if (open.empty() || open.back() != kBrackets[which - 1]) {
      return false;
    } else {
      open.pop_back();
    }
  }
  return open.empty();
}

LessonPlan PlanLessons(const configs::Config& config, const Tokenizer& tokenizer,
                       const DemonstrationData& data) {
  LessonPlan plan;
  if (!config.sft.curriculum.empty()) {
    plan.curriculum = MakeCurriculum(config, data);
    int64_t begin = 0;
    std::string phases;
    for (const auto& phase : plan.curriculum.phases()) {
      phases += (phases.empty() ? "" : ", ") + phase.name + " " +
                std::to_string(phase.end - begin) + " steps of " +
                std::to_string(phase.rows.size()) + " rows";
      begin = phase.end;
    }
    if (begin < config.run.steps)
      phases += ", then all of them " + std::to_string(config.run.steps - begin) + " steps";
    plan.notes.push_back("curriculum: " + phases);
  }
  if (config.sft.syntax_penalty > 0) {
    plan.syntax.weight = config.sft.syntax_penalty;
    int64_t code = 0, broken = 0;
    for (size_t i = 0; i < data.train.size(); ++i) {
      plan.syntax.brackets.emplace_back();
      if (data.sources[i] != kCodeSource) continue;
      plan.syntax.brackets.back() = BracketsOf(data.train[i], tokenizer);
      ++code;
      broken += plan.syntax.brackets.back().empty();
    }
    if (code == 0) {
      throw Error(ErrorCode::kInvalidArgument,
                  "is about demonstrations of the source \"code\", of which there is none; " +
                      SourcesThatThereAre(data),
                  "sft.syntax_penalty");
    }
    plan.notes.push_back("syntax penalty: on the brackets of " + std::to_string(code - broken) +
                         " demonstrations of code; those of " + std::to_string(broken) +
                         " do not match and are left alone");
  }
  return plan;
}

}  // namespace plumb::run
