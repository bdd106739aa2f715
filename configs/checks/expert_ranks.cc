#include "configs/checks/expert_ranks.h"

#include <string>

#include "common/base/device.h"
#include "common/base/error.h"
#include "configs/checks/distill_check.h"

namespace plumb::configs {
namespace {

bool OnGpu(const Config& config) {
  const auto device = ParseDevice(config.run.device);
  return device && !device->is_cpu();
}

}  // namespace

void CheckExpertRanks(const Config& config, const Parallel& parallel) {
  const auto refuse = [&](const std::string& why, const std::string& instead) {
    throw Error(ErrorCode::kUnsupported,
                "asks for ep=" + std::to_string(parallel.ep) + ", and " + why + ": " + instead +
                    ", or share the work as dp",
                "run.parallel");
  };
  if (parallel.tp > 1) {
    refuse("tp=" + std::to_string(parallel.tp) + " would cut layers whose experts are shared out",
           "leave tp out");
  }
  if (parallel.pp > 1) {
    refuse("pp=" + std::to_string(parallel.pp) +
               " has several micro-batches under way, and rows of one at a time go to experts",
           "leave pp out");
  }
  if (OnGpu(config)) {
    refuse("rows go to experts of other ranks through the hosts' memory in this version",
           "set run.device to \"cpu\"");
  }
  if (config.run.zero > 1) {
    refuse("run.zero = " + std::to_string(config.run.zero) +
               " reduces layers whose experts are other ranks' than the rest",
           "set run.zero to 1");
  }
  if (config.run.gradient_wire != GradientWire::kFloat32) {
    refuse("run.gradient_wire = \"" + NameOf(config.run.gradient_wire) +
               "\" keeps what rounding lost for all ranks at once",
           "set run.gradient_wire to \"float32\"");
  }
  if (config.policy.adapter != Adapter::kNone)
    refuse("adapters are not shared out in this version", "set policy.adapter to \"none\"");
  if (Distills(config))
    refuse("teachers compute whole models in this version", "leave distill.teachers out");
  if (config.eval.keep_best) {
    refuse("eval.keep_best writes weights in the middle of a run, of which each rank has a share",
           "set eval.keep_best to false");
  }
  const OptimizerConfig& o = config.optimizer;
  const auto of_whole = [&](bool is, const std::string& option, const std::string& instead) {
    if (is) refuse("optimizer." + option + " is about whole models", "set it to " + instead);
  };
  of_whole(o.name == OptimizerName::kMuon, "name = \"muon\"", "\"adamw\"");
  of_whole(o.moments == Moments::kInt8, "moments = \"int8\"", "\"float32\"");
  of_whole(o.masters == Masters::kNone, "masters = \"none\"", "\"float32\"");
  of_whole(o.gradients == Gradients::kBFloat16, "gradients = \"bfloat16\"", "\"float32\"");
  if (IsOffline(config)) return;
  if (config.algorithm.name == AlgorithmName::kPpo)
    refuse("a critic's experts are not shared out in this version", "take another algorithm.name");
  if (config.algorithm.reference_sync_every > 0) {
    refuse("a reference that is renewed is not put together from shares in this version",
           "set algorithm.reference_sync_every to 0");
  }
}

void CheckExpertSync(const Config& config) {
  const auto refuse = [&](const std::string& option, const std::string& why,
                          const std::string& instead) {
    throw Error(ErrorCode::kUnsupported,
                "is " + std::to_string(config.experts.sync_every) + ", and " + option + " " + why +
                    ": " + instead + ", or experts.sync_every to 1",
                "experts.sync_every");
  };
  const Parallel parallel = ReadParallel(config.run.parallel);
  if (parallel.tp > 1 || parallel.pp > 1) {
    refuse("run.parallel = \"" + config.run.parallel + "\"", "cuts layers, or a model between them",
           "share the work as dp and ep");
  }
  if (config.run.zero > 1) {
    refuse("run.zero = " + std::to_string(config.run.zero),
           "adds up a layer's gradients as soon as they are there", "set run.zero to 1");
  }
  if (config.run.gradient_wire != GradientWire::kFloat32) {
    refuse("run.gradient_wire = \"" + NameOf(config.run.gradient_wire) + "\"",
           "keeps what rounding lost for the next update", "set run.gradient_wire to \"float32\"");
  }
  if (OnGpu(config)) {
    refuse("run.device = \"" + config.run.device + "\"", "adds up all gradients at once",
           "set run.device to \"cpu\"");
  }
  if (config.policy.adapter != Adapter::kNone) {
    refuse("policy.adapter = \"" + NameOf(config.policy.adapter) + "\"",
           "trains no experts of the base", "set policy.adapter to \"none\"");
  }
  if (config.optimizer.gradients == Gradients::kBFloat16) {
    refuse("optimizer.gradients = \"bfloat16\"", "gathers them in rooms of one update",
           "set optimizer.gradients to \"float32\"");
  }
  if (config.optimizer.moments == Moments::kInt8 || config.optimizer.masters == Masters::kNone) {
    refuse("optimizer.moments = \"int8\" or masters = \"none\"", "updates all of a model at once",
           "set both to \"float32\"");
  }
  if (!IsOffline(config) && config.algorithm.name == AlgorithmName::kPpo)
    refuse("algorithm.name = \"ppo\"", "has a critic, which does not go by it",
           "take another algorithm.name");
}

}  // namespace plumb::configs
