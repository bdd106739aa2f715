// plumb reward test RECIPE: its reward parts, made as a run makes them, on a few answers, before
// anything is trained.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/record/json_text.h"
#include "configs/config.h"
#include "replay/store/record.h"
#include "replay/store/unscored.h"
#include "reward/models/reward_model.h"
#include "reward/part/notice.h"
#include "reward/part/reply.h"
#include "reward/part/truth.h"
#include "reward/scorer.h"
#include "run/commands/cli.h"
#include "run/commands/spooled_input.h"
#include "run/session/recipe/equal_scores.h"
#include "run/session/recipe/missing_truths.h"
#include "run/session/recipe/recipe_check.h"
#include "run/session/reward_samples.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;
using reward::GroupScorer;
using reward::PartScore;

struct TestArguments {
  std::string recipe, samples;
  std::vector<std::string> overrides, parts;
  bool json = false;
};

// What one part did on all samples.
struct PartSummary {
  std::string name, kind, digest;
  double weight = 0;
  std::vector<double> values, seconds;  // of scored answers; of calls
  size_t skipped = 0, failed = 0;
  std::map<std::string, size_t> failures;
  std::string first_failure;
  std::string equal;  // what is said where all values are one; empty: they are not
};

struct Scored {
  const RewardSample* sample;
  size_t group = 0;
  double seconds = 0;                       // of its group: the slowest part's call
  replay::Fate fate = replay::Fate::kKeep;  // of its group in a run, at the first try
  Trajectory trajectory;
  std::vector<PartScore> parts;
};

void Select(configs::Config& config, const std::vector<std::string>& wanted,
            const std::string& recipe) {
  std::string names;
  for (configs::RewardPartConfig& part : config.reward.parts) {
    if (part.name.empty()) part.name = part.kind;
    names += (names.empty() ? "" : ", ") + part.name;
  }
  for (const std::string& name : wanted) {
    const auto& parts = config.reward.parts;
    if (std::none_of(parts.begin(), parts.end(),
                     [&](const auto& part) { return part.name == name; })) {
      throw Error(ErrorCode::kNotFound,
                  "the recipe has no reward part '" + name +
                      "'; its parts: " + (names.empty() ? "none" : names),
                  recipe);
    }
  }
  if (wanted.empty()) return;
  std::erase_if(config.reward.parts, [&](const auto& part) {
    return std::find(wanted.begin(), wanted.end(), part.name) == wanted.end();
  });
}

// The smallest value that so many per cent do not exceed.
double Percentile(std::vector<double> all, size_t p) {
  if (all.empty()) return 0;
  std::sort(all.begin(), all.end());
  return all[(all.size() * p + 99) / 100 - 1];
}

std::string Time(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, seconds < 1 ? "%.2f ms" : "%.2f s",
                seconds < 1 ? seconds * 1e3 : seconds);
  return text;
}

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", value);
  return text;
}

// The beginning of a text on one line.
std::string Shown(const std::string& text, size_t width) {
  std::string out;
  for (const char c : text)
    out += c == '\n' ? std::string("\\n")
                     : std::string(1, static_cast<unsigned char>(c) < 32 ? '?' : c);
  if (out.size() <= width) return out;
  size_t cut = width - 2;
  // not within a character
  while (cut > 0 && (static_cast<unsigned char>(out[cut]) & 0xC0) == 0x80) --cut;
  return out.substr(0, cut) + "..";
}

// Rows of words, each column as wide as its widest.
void PrintTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i)
      line += row[i] + std::string(i + 1 < row.size() ? widths[i] - row[i].size() + 2 : 0, ' ');
    std::printf("%s\n", line.c_str());
  }
}

// An exception of the function is none that it reports of an answer.
constexpr std::string_view kRaised = "raised ", kThrew = "threw";

std::string VerdictOf(const PartScore& score) {
  if (score.failure == reward::Failure::kReported) {
    if (score.reason.starts_with(kRaised)) return "raised";
    if (score.reason.starts_with(kThrew)) return std::string(kThrew);
  }
  return std::string(reward::FailureName(score.failure));
}

std::string Failed(const PartScore& score) {
  if (VerdictOf(score) == "raised") return "raised: " + score.reason.substr(kRaised.size());
  return std::string(reward::FailureName(score.failure)) + ": " + score.reason;
}

// While it lives, what parts say of groups is kept and not said: the tables say it of each sample.
class KeptNotices {
 public:
  KeptNotices() {
    former_ = reward::SetNoticeSink([this](const std::string& text) {
      const size_t group = text.find("' on group ");
      const size_t what = group == std::string::npos ? group : text.find(": ", group);
      MutexLock lock(mu_);
      if (what == std::string::npos) return LogWarning(text);  // of no group: it cannot wait
      ++kept_[text.substr(0, group + 1) + text.substr(what)];
    });
  }
  ~KeptNotices() { reward::SetNoticeSink(former_); }
  KeptNotices(const KeptNotices&) = delete;
  KeptNotices& operator=(const KeptNotices&) = delete;

  // Those that no sample shows, each once: the next attempt went well.
  void SayOthers(const std::string& shown) {
    MutexLock lock(mu_);
    for (const auto& [text, times] : kept_) {
      if (const size_t reason = text.rfind(": "); shown.find(text.substr(reason)) == shown.npos)
        LogWarning(text + (times > 1 ? " (" + std::to_string(times) + " times)" : ""));
    }
    kept_.clear();
  }

 private:
  std::function<void(const std::string&)> former_;
  Mutex mu_;
  std::map<std::string, int64_t> kept_ PLUMB_GUARDED_BY(mu_);
};

void PrintText(const std::vector<Scored>& scored, const std::vector<PartSummary>& parts) {
  std::vector<std::vector<std::string>> rows = {{"sample", "prompt", "completion"}};
  for (const PartSummary& part : parts) {
    char weight[32];
    std::snprintf(weight, sizeof weight, "%g", part.weight);
    rows[0].push_back(part.name + " x " + weight);
  }
  rows[0].insert(rows[0].end(), {"total", "time"});
  for (const Scored& s : scored) {
    const Prompt& prompt = s.sample->prompt;
    rows.push_back({s.sample->label,
                    Shown(prompt.text.empty() ? prompt.messages.back().content : prompt.text, 24),
                    Shown(s.sample->completion, 24)});
    for (const PartScore& score : s.parts) {
      rows.back().push_back(!score.scored() ? VerdictOf(score)
                            : score.skipped ? "-"
                                            : Number(score.value));
    }
    rows.back().push_back(s.trajectory.scored                ? Number(s.trajectory.reward)
                          : s.fate == replay::Fate::kRequeue ? "requeued"
                                                             : "dropped");
    rows.back().push_back(Time(s.seconds));
  }
  PrintTable(rows);
  std::printf("\n");
  rows = {{"part", "kind", "calls", "scored", "mean", "min", "max", "p50", "p99", "failed"}};
  for (const PartSummary& part : parts) {
    const auto [min, max] = std::minmax_element(part.values.begin(), part.values.end());
    const bool any = !part.values.empty();
    double sum = 0;
    for (const double value : part.values) sum += value;
    std::string failures;
    for (const auto& [kind, count] : part.failures)
      failures += " " + kind + " " + std::to_string(count);
    rows.push_back({part.name, part.kind, std::to_string(part.seconds.size()),
                    std::to_string(part.values.size()),
                    any ? Number(sum / static_cast<double>(part.values.size())) : "-",
                    any ? Number(*min) : "-", any ? Number(*max) : "-",
                    Time(Percentile(part.seconds, 50)), Time(Percentile(part.seconds, 99)),
                    std::to_string(part.failed) + (failures.empty() ? "" : ":" + failures)});
  }
  PrintTable(rows);
  // What samples have in common is said once.
  struct Common {
    std::string what, samples;
    size_t count = 0;
  };
  std::vector<Common> failures;
  const auto fail = [&](const std::string& sample, const std::string& what) {
    auto one = std::find_if(failures.begin(), failures.end(),
                            [&](const Common& other) { return other.what == what; });
    if (one == failures.end()) one = failures.insert(failures.end(), {what, "", 0});
    constexpr size_t kNamed = 8;
    if (++one->count <= kNamed) one->samples += (one->count == 1 ? "" : ", ") + sample;
    if (one->count == kNamed + 1) one->samples += ", ..";
  };
  for (size_t p = 0; p < parts.size(); ++p) {
    for (const Scored& s : scored) {
      if (!s.parts[p].scored())
        fail(s.sample->label, "part '" + parts[p].name + "': " + Failed(s.parts[p]));
    }
  }
  for (const Scored& s : scored) {
    const bool each =
        std::all_of(s.parts.begin(), s.parts.end(), [](const PartScore& p) { return p.scored(); });
    if (!s.trajectory.scored && each) fail(s.sample->label, s.trajectory.unscored_reason);
  }
  for (const PartSummary& part : parts) {
    if (!part.equal.empty()) std::printf("\nnote: %s\n", part.equal.c_str());
  }
  if (!failures.empty()) std::printf("\nfailures\n");
  for (const Common& one : failures) {
    const std::string times = one.count > 1 ? std::to_string(one.count) + " samples: " : "";
    std::printf("  %s%s; %s\n", times.c_str(), one.samples.c_str(), one.what.c_str());
  }
}

void PrintJson(const std::string& recipe, const std::vector<Scored>& scored,
               const std::vector<PartSummary>& parts) {
  Json out = {{"recipe", recipe}, {"samples", Json::array()}, {"parts", Json::array()}};
  for (const Scored& s : scored) {
    const Prompt& prompt = s.sample->prompt;
    Json row = {{"sample", s.sample->label}, {"group", s.group}, {"prompt", prompt.text}};
    if (prompt.text.empty()) row["prompt"] = reward::PromptJson(prompt);
    row["ground_truth"] = prompt.ground_truth.empty() ? Json(nullptr) : Json(prompt.ground_truth);
    row["completion"] = s.sample->completion;
    row["reward"] = s.trajectory.scored ? Json(s.trajectory.reward) : Json(nullptr);
    if (!s.trajectory.scored) row["unscored_reason"] = s.trajectory.unscored_reason;
    row["seconds"] = s.seconds;
    row["parts"] = Json::object();
    for (size_t p = 0; p < s.parts.size(); ++p) {
      const PartScore& score = s.parts[p];
      Json& part = row["parts"][parts[p].name];
      part["value"] = score.scored() && !score.skipped ? Json(score.value) : Json(nullptr);
      if (score.skipped) part["skipped"] = true;
      for (const auto& [name, value] : score.details) part["details"][name] = value;
      if (!score.scored())
        part["failure"] = reward::FailureName(score.failure), part["reason"] = score.reason;
    }
    out["samples"].push_back(std::move(row));
  }
  for (const PartSummary& part : parts) {
    Json row = {{"name", part.name},
                {"kind", part.kind},
                {"weight", part.weight},
                {"digest", part.digest},
                {"calls", part.seconds.size()},
                {"scored", part.values.size()},
                {"skipped", part.skipped},
                {"failed", part.failed}};
    if (!part.values.empty()) {
      double sum = 0;
      for (const double value : part.values) sum += value;
      row["mean"] = sum / static_cast<double>(part.values.size());
      row["min"] = *std::min_element(part.values.begin(), part.values.end());
      row["max"] = *std::max_element(part.values.begin(), part.values.end());
    }
    row["seconds_p50"] = Percentile(part.seconds, 50);
    row["seconds_p99"] = Percentile(part.seconds, 99);
    row["failures"] = part.failures;
    if (!part.equal.empty()) row["note"] = part.equal;
    out["parts"].push_back(std::move(row));
  }
  std::printf("%s\n", out.dump(1, ' ', false, Json::error_handler_t::replace).c_str());
}

std::string WhyDisabled(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  }
}

int Test(const TestArguments& a) {
  std::vector<std::string> overrides = a.overrides;
  // Samples are the data, and text alone will do: a file with nothing but [[reward.parts]] can be
  // tried.
  if (!a.samples.empty()) overrides.insert(overrides.begin(), "data.train=arithmetic");
  bool asks_model = a.samples.empty();
  const auto read_of = [&](const configs::Loaded& loaded) {  // of what may be missing
    asks_model = asks_model ||
                 std::any_of(loaded.origins.begin(), loaded.origins.end(), [](const auto& origin) {
                   return origin.first.starts_with("model.") && origin.second != "default";
                 });
    configs::Config read = PartsAlone(loaded);
    if (asks_model) read.model.path = loaded.config.model.path;
    read.data.train = loaded.config.data.train;
    if (!asks_model) {  // of those that need one, that is the first thing to say
      std::erase_if(read.reward.parts, [](const configs::RewardPartConfig& part) {
        return part.kind == "reward_model" || part.kind == "perplexity";
      });
    }
    return read;
  };
  const configs::Loaded loaded = CheckedRecipe(
      a.recipe, overrides, read_of, [&](configs::Config& c) { Select(c, a.parts, a.recipe); });
  const configs::Config& config = loaded.config;
  if (config.reward.parts.empty()) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "has no [[reward.parts]], so there is nothing to try" +
            std::string(configs::IsOffline(config)
                            ? ": algorithm.name = \"" + configs::NameOf(config.algorithm.name) +
                                  "\" trains without rewards"
                            : ": name at least one"),
        a.recipe);
  }
  const std::unique_ptr<Session> session = asks_model ? Session::WithoutRun(config) : nullptr;
  std::vector<RewardSample> samples;
  if (a.samples.empty()) {
    samples = MakeRewardSamples(config);
  } else {
    SpooledInput(a.samples).Read(
        [&](const std::string& file) { samples = ReadRewardSamples(file, config); });
  }
  std::vector<TrajectoryGroup> groups = GroupsOf(samples, session.get());
  GroupScorer scorer(config.reward, session ? reward::WithModelParts(session->tokenizer())
                                            : reward::HostOptions());

  std::vector<const Prompt*> prompts;
  for (const TrajectoryGroup& group : groups) prompts.push_back(&group.lease.prompt);
  std::vector<PartSummary> parts;
  const auto truths = scorer.Truths();
  for (const auto& [name, digest] : scorer.Digests()) {
    const std::string missing = MissingTruths(name, truths[parts.size()], prompts);
    if (!missing.empty()) std::fprintf(stderr, "plumb: note: %s\n", missing.c_str());
    const configs::RewardPartConfig& part = config.reward.parts[parts.size()];  // in the same order
    PartSummary summary;
    summary.name = name, summary.kind = part.kind, summary.digest = digest,
    summary.weight = part.weight;
    parts.push_back(std::move(summary));
  }
  std::vector<Scored> scored;
  std::string shown;  // why samples have no score
  KeptNotices notices;
  for (size_t g = 0; g < groups.size(); ++g) {
    if (StopRequested()) {
      std::fprintf(stderr, "plumb: stopped after %zu of %zu prompts\n", g, groups.size());
      return kExitFewerSteps;
    }
    TrajectoryGroup& group = groups[g];
    std::vector<GroupScorer::PartResult> results = scorer.ScoreParts(group);
    double slowest = 0;
    for (size_t p = 0; p < results.size(); ++p) {
      GroupScorer::PartResult& result = results[p];
      if (result.error) {
        result.scores.assign(
            group.trajectories.size(),
            PartScore::Failed(reward::Failure::kQuarantined, WhyDisabled(result.error)));
      }
      slowest = std::max(slowest, result.seconds);
      PartSummary& part = parts[p];
      part.seconds.push_back(result.seconds);
      for (const PartScore& score : result.scores) {
        if (!score.scored()) {
          ++part.failed;
          ++part.failures[VerdictOf(score)];
          shown += ": " + score.reason + "\n";
          if (part.first_failure.empty()) part.first_failure = Failed(score);
        } else if (score.skipped) {
          ++part.skipped;
        } else {
          part.values.push_back(score.value);
        }
      }
    }
    scorer.Combine(group, results);
    const replay::Verdict verdict =
        replay::JudgeScores(replay::ScoresOf(group), config.reward.on_failure, 0, 1);
    if (verdict.fate != replay::Fate::kKeep)
      replay::ApplyScores(replay::AsDropped(replay::ScoresOf(group), verdict.reason), group);
    for (size_t i = 0; i < group.trajectories.size(); ++i) {
      Scored s{.sample = &samples[scored.size()],
               .group = g,
               .seconds = slowest,
               .fate = verdict.fate,
               .trajectory = group.trajectories[i],
               .parts = {}};
      for (const auto& result : results) s.parts.push_back(result.scores[i]);
      scored.push_back(std::move(s));
    }
  }
  notices.SayOthers(shown);
  const bool messages = std::any_of(samples.begin(), samples.end(), [](const RewardSample& s) {
    return !s.prompt.messages.empty();
  });
  const bool one_answer = std::all_of(samples.begin(), samples.end(), [&](const RewardSample& s) {
    return s.completion == samples.front().completion;
  });
  const bool right = std::all_of(samples.begin(), samples.end(), [](const RewardSample& s) {
    std::string why;
    const auto truths = reward::Truths(s.prompt, &why);
    return std::any_of(truths.begin(), truths.end(), [&](const std::string& truth) {
      return !truth.empty() && s.completion.find(truth) != std::string::npos;
    });
  });
  for (size_t p = 0; p < parts.size() && !one_answer; ++p) {
    const std::vector<double>& values = parts[p].values;
    if (values.size() < 2 || values.size() < samples.size()) continue;  // others say it already
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    if (*least == *most)
      parts[p].equal = EqualScores(config.reward.parts[p], *least, values.size(), messages, right);
  }
  if (a.json) {
    PrintJson(a.recipe, scored, parts);
  } else {
    PrintText(scored, parts);
  }
  std::fflush(stdout);
  int code = 0;
  for (const PartSummary& part : parts) {
    if (part.failed < samples.size()) continue;
    std::fprintf(stderr, "plumb: reward part '%s' failed on every sample; first: %s\n",
                 part.name.c_str(), part.first_failure.c_str());
    code = kExitRewardFailed;
  }
  return code;
}

}  // namespace

void AddRewardTestCommand(CLI::App& app, CliResult& result) {
  CLI::App* reward = nullptr;
  for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; })) {
    if (verb->get_name() == "reward") reward = verb;
  }
  if (reward == nullptr)
    reward = app.add_subcommand("reward", "Reward functions outside a run")->require_subcommand(1);
  auto a = std::make_shared<TestArguments>();
  CLI::App* test = reward->add_subcommand(
      "test", "Score a few answers with a recipe's reward parts, as a run would");
  test->add_option("recipe", a->recipe, "TOML file with [[reward.parts]]")->required();
  test->add_option(
      "--samples", a->samples,
      "JSONL: prompt, completion, answer and extra columns; -: standard input; without "
      "it samples are made from the recipe's data");
  test->add_option("--part", a->parts, "this part only, any number of times")
      ->allow_extra_args(false);
  test->add_option("--set", a->overrides, "section.key=value, any number of times")
      ->allow_extra_args(false);
  test->add_flag("--json", a->json, "one JSON object instead of the tables");
  test->footer("Exit code 10: a part failed on every sample.");
  test->callback([a, &result] { result.exit_code = Test(*a); });
}

}  // namespace plumb::run
