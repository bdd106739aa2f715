#include "configs/parallel.h"

#include <set>
#include <string_view>

#include "common/base/device.h"
#include "common/base/error.h"
#include "common/base/numbers/number_text.h"
#include "configs/checks/distill_check.h"
#include "configs/checks/expert_ranks.h"

namespace plumb::configs {
namespace {

constexpr int64_t kMostRanks = 1024;

[[noreturn]] void Refuse(const std::string& entry) {
  throw Error(ErrorCode::kInvalidArgument,
              "holds \"" + entry +
                  "\": write dp=2, a factor of dp, tp, pp and ep once each, of 1 to " +
                  std::to_string(kMostRanks) + ", separated by commas",
              "run.parallel");
}

// What is computed from whole weights only.
void CheckTensorParallel(const Config& config, int64_t tp) {
  const auto refuse = [&](const std::string& why, const std::string& instead) {
    throw Error(ErrorCode::kUnsupported,
                "asks for tp=" + std::to_string(tp) + ", and " + why + ": " + instead +
                    ", or share the work as dp",
                "run.parallel");
  };
  if (!IsOffline(config)) {
    if (config.algorithm.name == AlgorithmName::kPpo)
      refuse("a critic is not cut in this version", "take another algorithm.name");
    if (config.algorithm.reference_sync_every > 0) {
      refuse("a reference that is renewed is not put together from shares in this version",
             "set algorithm.reference_sync_every to 0");
    }
    if (config.rollout.top_k > 0 || config.rollout.top_p < 1 || config.rollout.min_p > 0) {
      refuse(
          "tokens that were drawn from a part of the vocabulary are not scored by ranks that "
          "have a part of it each",
          "set rollout.top_k to 0, top_p to 1 and min_p to 0");
    }
  }
  const auto device = ParseDevice(config.run.device);
  if (config.run.zero > 1 && device && !device->is_cpu()) {
    refuse("run.zero = " + std::to_string(config.run.zero) +
               " would have two groups of ranks talk between the same GPUs at once",
           "set run.zero to 1");
  }
  if (config.policy.adapter != Adapter::kNone)
    refuse("adapters are not cut in this version", "set policy.adapter to \"none\"");
  if (Distills(config))
    refuse("a teacher is not compared with a share of the vocabulary",
           "leave distill.teachers out");
  if (config.eval.keep_best) {
    refuse("eval.keep_best writes weights in the middle of a run, of which each rank has a share",
           "set eval.keep_best to false");
  }
}

// What is not cut into stages.
void CheckPipeline(const Config& config, const Parallel& parallel) {
  const auto refuse = [&](const std::string& why, const std::string& instead) {
    throw Error(ErrorCode::kUnsupported,
                "asks for pp=" + std::to_string(parallel.pp) + ", and " + why + ": " + instead +
                    ", or share the work as dp",
                "run.parallel");
  };
  if (parallel.tp > 1)
    refuse("layers of which ranks have shares are not cut into stages in this version",
           "leave tp out");
  if (config.run.zero > 1) {
    refuse("run.zero = " + std::to_string(config.run.zero) +
               " has one pass at a time, and a stage has several under way",
           "set run.zero to 1");
  }
  if (config.policy.adapter != Adapter::kNone)
    refuse("adapters are not cut into stages in this version", "set policy.adapter to \"none\"");
  if (!config.policy.frozen.empty() || !config.policy.learning_rates.empty()) {
    refuse(
        "policy.frozen and policy.learning_rates name parameters of the whole model, of which a "
        "stage has others than the next",
        "leave them out");
  }
  if (Distills(config))
    refuse("a teacher is compared at the end of whole passes", "leave distill.teachers out");
  if (config.eval.keep_best) {
    refuse("eval.keep_best writes weights in the middle of a run, of which each rank has a stage",
           "set eval.keep_best to false");
  }
  if (config.algorithm.name == AlgorithmName::kRewardModel)
    refuse("reward models are not cut into stages in this version", "take tp");
  if (IsOffline(config)) return;
  if (config.algorithm.name == AlgorithmName::kPpo)
    refuse("a critic is not cut into stages in this version", "take another algorithm.name");
  if (config.algorithm.reference_sync_every > 0) {
    refuse("a reference that is renewed is not put together from stages in this version",
           "set algorithm.reference_sync_every to 0");
  }
}

}  // namespace

Parallel ReadParallel(const std::string& text) {
  Parallel out;
  std::set<std::string_view> seen;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t comma = rest.find(',');
    const std::string_view entry = rest.substr(0, comma);
    rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
    const size_t equals = entry.find('=');
    if (equals == std::string_view::npos) Refuse(std::string(entry));
    const std::string_view name = entry.substr(0, equals), number = entry.substr(equals + 1);
    const int64_t value = ParseNumber<int64_t>(number).value_or(0);
    if (value < 1 || value > kMostRanks || !seen.insert(name).second) Refuse(std::string(entry));
    if (name == "dp") out.dp = value;
    else if (name == "tp") out.tp = value;
    else if (name == "pp") out.pp = value;
    else if (name == "ep") out.ep = value;
    else Refuse(std::string(entry));
  }
  if (!text.empty() && text.back() == ',') Refuse("");
  return out;
}

void CheckParallel(const Config& config, int64_t ranks) {
  const Parallel parallel = ReadParallel(config.run.parallel);
  if (parallel.ep > 1) CheckExpertRanks(config, parallel);
  if (config.experts.sync_every > 1) CheckExpertSync(config);
  if (parallel.tp > 1) CheckTensorParallel(config, parallel.tp);
  if (parallel.pp > 1) CheckPipeline(config, parallel);
  if (ranks / (parallel.tp * parallel.pp) <= 1) {
    const auto alone = [](const std::string& option, const std::string& value) {
      throw Error(ErrorCode::kInvalidArgument,
                  "is " + value +
                      ", which is about ranks that share out batches, and this run has one: take "
                      "it out, or ask for more with run.parallel = \"dp=2\"",
                  option);
    };
    if (config.run.gradient_wire != GradientWire::kFloat32)
      alone("run.gradient_wire", "\"" + NameOf(config.run.gradient_wire) + "\"");
    if (config.run.zero > 1) alone("run.zero", std::to_string(config.run.zero));
    return;
  }
  if (config.run.zero > 2 && !IsOffline(config)) {
    throw Error(ErrorCode::kUnsupported,
                "is 3, which keeps of the weights a part on each rank, and answers are generated "
                "from weights that are whole: 2 keeps gradients in parts",
                "run.zero");
  }
  if (config.run.zero > 2 && config.eval.keep_best) {
    throw Error(ErrorCode::kInvalidArgument,
                "eval.keep_best writes weights in the middle of a run, and run.zero = 3 keeps a "
                "part of them on each rank: use run.zero = 2",
                "run.zero");
  }
  if (config.run.zero > 2 && config.experts.bias_rate > 0) {
    throw Error(ErrorCode::kUnsupported,
                "is above 0, and moves a bias of weights that are whole: set it to 0, or run.zero "
                "to 2",
                "experts.bias_rate");
  }
  const auto device = ParseDevice(config.run.device);
  if (!device || device->is_cpu()) return;
  if (config.run.gradient_wire != GradientWire::kFloat32) {
    throw Error(ErrorCode::kUnsupported,
                "is \"" + NameOf(config.run.gradient_wire) +
                    "\": between GPUs gradients travel as float32 in this version",
                "run.gradient_wire");
  }
}

}  // namespace plumb::configs
