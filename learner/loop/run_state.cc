#include "learner/loop/run_state.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;

Json ToJson(const EvalResult& e) {
  Json j = {{"version", e.version},     {"accuracy", e.accuracy}, {"reward", e.reward},
            {"reward_se", e.reward_se}, {"answers", e.answers},   {"unscored", e.unscored},
            {"aborted", e.aborted},     {"seconds", e.seconds}};
  j["accuracy_se"] = e.accuracy_se;
  if (e.reward_chosen) j["reward_chosen"] = *e.reward_chosen;
  if (e.reward_rejected) j["reward_rejected"] = *e.reward_rejected;
  if (e.loss) j["loss"] = *e.loss;
  if (e.perplexity) j["perplexity"] = *e.perplexity;
  return j;
}

EvalResult EvalOf(const Json& j) {
  EvalResult e{.accuracy = j.at("accuracy").get<double>()};
  if (j.contains("loss")) e.loss = j["loss"].get<double>();
  e.accuracy_se = j.value("accuracy_se", 0.0);
  if (j.contains("reward_chosen")) e.reward_chosen = j["reward_chosen"].get<double>();
  if (j.contains("reward_rejected")) e.reward_rejected = j["reward_rejected"].get<double>();
  // may have been infinite, which JSON has not
  if (j.contains("perplexity") && e.loss) e.perplexity = std::exp(*e.loss);
  if (j.contains("examples")) {  // as offline runs wrote it once
    e.reward = j.at("margin").get<double>();
    e.answers = j["examples"].get<int64_t>();
    return e;
  }
  e.seconds = j.value("seconds", 0.0);
  e.version = j.at("version").get<int64_t>();
  e.reward = j.at("reward").get<double>();
  e.reward_se = j.value("reward_se", 0.0);
  e.answers = j.at("answers").get<int64_t>();
  e.unscored = j.at("unscored").get<int64_t>();
  e.aborted = j.value("aborted", int64_t{0});
  return e;
}

Json ToJson(const SftResult& s, bool ended) {
  Json j = {{"steps", s.steps},
            {"tokens", s.tokens},
            {"heldout_first", s.heldout_first},
            {"heldout_last", s.heldout_last},
            {"flat", s.flat},
            {"without_new_low", s.without_new_low},
            {"ended", ended}};
  if (std::isfinite(s.lowest)) j["lowest"] = s.lowest;
  return j;
}

SftResult SftOf(const Json& j) {
  SftResult s;
  s.steps = j.at("steps").get<int64_t>();
  s.tokens = j.at("tokens").get<int64_t>();
  s.heldout_first = j.at("heldout_first").get<double>();
  s.heldout_last = j.at("heldout_last").get<double>();
  s.flat = j.at("flat").get<bool>();
  s.lowest = j.value("lowest", s.lowest);
  s.without_new_low = j.value("without_new_low", int64_t{0});
  return s;
}

}  // namespace

std::string WriteEvaluation(const EvalResult& result) { return ToJson(result).dump(1) + "\n"; }

EvalResult ReadEvaluation(const std::string& json, const std::string& where) {
  try {
    return EvalOf(Json::parse(json));
  } catch (const Json::exception& e) {
    throw Error(ErrorCode::kCorruption,
                std::string("is no evaluation that a run kept (") + e.what() +
                    "): take its folder away, and the next evaluation counts as the best",
                where);
  }
}

std::string WriteRunState(const RunState& state) {
  Json j = {{"equal_reward_steps", state.rewards.equal_steps},
            {"scoreless_steps", state.rewards.scoreless_steps},
            {"scored_groups", state.rewards.groups},
            {"equal_groups", state.rewards.equal_groups}};
  if (!state.store.empty()) j["store"] = state.store;
  if (state.before) j["before"] = ToJson(*state.before);
  if (state.sft) j["sft"] = ToJson(*state.sft, state.sft_ended);
  return j.dump();
}

RunState ReadRunState(const std::string& json, const std::string& where) {
  try {
    const Json j = Json::parse(json);
    RunState state{.store = j.value("store", std::string())};
    if (j.contains("before")) state.before = EvalOf(j["before"]);
    if (j.contains("sft")) {
      state.sft = SftOf(j["sft"]);
      state.sft_ended = j["sft"].value("ended", false);
    }
    state.rewards = {.equal_steps = j.value("equal_reward_steps", int64_t{0}),
                     .scoreless_steps = j.value("scoreless_steps", int64_t{0}),
                     .groups = j.value("scored_groups", int64_t{0}),
                     .equal_groups = j.value("equal_groups", int64_t{0})};
    return state;
  } catch (const Json::exception& e) {
    throw Error(ErrorCode::kCorruption,
                std::string("the state that a run kept in its checkpoint cannot be read (") +
                    e.what() + "): take the checkpoint away to go on from the one before",
                where);
  }
}

}  // namespace plumb::learner
