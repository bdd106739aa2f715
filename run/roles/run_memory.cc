#include "run/roles/run_memory.h"

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "actor/engine.h"
#include "actor/pages/kv_pages.h"
#include "actor/pages/page_pools.h"
#include "common/base/error.h"
#include "common/base/free_memory.h"
#include "common/base/size_text.h"
#include "configs/checks/actor_device.h"
#include "configs/learning_check.h"
#include "configs/parallel.h"
#include "kernels/device/device_memory.h"
#include "learner/update/checkpoint_size.h"
#include "policy_model/families/tensor_share.h"
#include "policy_model/kept_logits.h"
#include "policy_model/memory/out_of_memory.h"
#include "policy_model/pass_bytes.h"
#include "run/roles/observer.h"
#include "run/roles/roles.h"

namespace plumb::run {
namespace {

using configs::Config;
using configs::Recompute;
using learner::MemoryPlan;
using policy_model::ModelShape;

// On a GPU nothing is enqueued on it: it only says where memory would lie.
Stream PlanningStream(Device device) {
  static int place = 0;
  return device.is_cpu() ? Stream(Device::kCpu) : Stream::Borrow(device, &place);
}

bool SharesWeights(const Config& config) {
  return config.run.roles == configs::Roles::kLocal &&
         config.run.schedule == configs::Schedule::kSync && !configs::ActorsApart(config);
}

// ", int8: 51.6% of bfloat16" where keys and values are kept in fewer bits.
std::string ShareOfBfloat16(const ModelShape& shape, const actor::EngineOptions& engine) {
  if (engine.kv_format == kernels::KvFormat::kModel) return "";
  const auto bytes = [&](kernels::KvFormat format) {
    return static_cast<double>(
        actor::KvPages::PageBytes(shape, DType::kBFloat16, engine.page_tokens, format));
  };
  char text[64];
  std::snprintf(text, sizeof text, ", with scales %.1f%% of bfloat16",
                100 * bytes(engine.kv_format) / bytes(kernels::KvFormat::kModel));
  return text;
}

int64_t WeightBytes(const policy_model::Weights& weights, bool trained) {
  int64_t bytes = 0;
  for (const auto& set : weights.sets())
    bytes += !trained || set->trained ? static_cast<int64_t>(set->flat.bytes()) : 0;
  return bytes;
}

// What the actors of a device take. `whole`: the policy; where processes compute it together, each
// has a share, and the first of them the whole twice over, from which it hands the shares out.
void AddActors(const Config& config, const policy_model::Weights& whole, MemoryPlan& plan) {
  const bool cpu = whole.device().is_cpu(), shared = config.rollout.tp > 1;
  std::optional<policy_model::Weights> share;
  if (shared) {
    share = policy_model::Weights::WithoutMemory(
        policy_model::ShareOf(whole.shape(), 0, static_cast<int>(config.rollout.tp), "rollout.tp"),
        whole.stream(), whole.dtype());
  }
  const policy_model::Weights& weights = share ? *share : whole;
  const ModelShape& shape = weights.shape();
  const int64_t actors = configs::ActorsADevice(config) * (cpu ? config.rollout.tp : 1);
  const std::string each = actors == 1 ? "" : std::to_string(actors) + " actors, ";
  const auto type = config.model.dtype;
  const actor::EngineOptions engine = EngineOptionsOf(config, shape);
  int64_t kv = actor::Engine::KvBytes(shape, weights.device(), type, engine);
  if (cpu) {  // mapped as a whole, taken as it is touched: an answer's pages and two begun ones
    const int64_t longest = std::min(config.data.max_prompt_tokens + config.rollout.max_new_tokens,
                                     shape.max_positions);
    const int64_t pages = (longest + engine.page_tokens - 1) / engine.page_tokens + 2;
    // A state for each answer and for each prompt in work.
    const int64_t each_sequence =
        pages * actor::KvPages::PageBytes(shape, type, engine.page_tokens, engine.kv_format) +
        2 * actor::StateBytes(shape);
    kv = std::min(kv, engine.max_batch * each_sequence);
  }
  const bool states = actor::StateBytes(shape) > 0;
  plan.Add(states ? "keys, values, states" : "keys and values", actors * kv,
           each + "rollout.kv_budget_mb at most" + ShareOfBfloat16(shape, engine));
  const int64_t logits = engine.max_batch, rows = logits + int64_t{engine.prefill_tokens};
  plan.Add("generation",
           actors * (policy_model::BytesOfStep(weights, rows, logits) +
                     policy_model::BytesOfPositions(weights)),
           each + "logits and activations of a step");
  if (SharesWeights(config)) return;
  plan.Add("weights of actors", actors * WeightBytes(weights, /*trained=*/false),
           each + (shared ? "a share each" : "a copy of their own"));
  if (shared) {
    plan.Add("weights to share out", 2 * configs::ActorsADevice(config) * WeightBytes(whole, false),
             "the newest version, and the one before, whole");
  }
}

// What the newest version takes on its way to the actors, where the learner computes.
void AddHandOver(const Config& config, const policy_model::Weights& weights, MemoryPlan& plan) {
  const bool lent =
      configs::ActorDevice(config).is_cuda() && config.run.roles != configs::Roles::kCluster;
  if (SharesWeights(config) || (weights.device().is_cuda() && !lent)) return;
  plan.Add("hand-over", WeightBytes(weights, /*trained=*/true),
           "the newest version on its way to the actors");
}

// On a GPU each process has, besides what it asks for: the driver's part, code, and what products
// work in. Of an H200 with CUDA 13.
constexpr int64_t kCudaBytes = 600'000'000;

// What a pass keeps of its logits where a quarter of what is left holds them
// (policy_model/kept_logits.h): there is always room for it, so it makes no plan too large.
void AddKeptLogits(const Config& config, const ModelShape& shape, Device device, int64_t free,
                   MemoryPlan& plan) {
  const configs::Parallel parallel = configs::ReadParallel(config.run.parallel);
  if (device.is_cpu() || free == 0 || parallel.tp * parallel.pp > 1 ||
      config.algorithm.name == configs::AlgorithmName::kRewardModel)
    return;
  const int64_t floats = learner::LargestBatch(config, shape).rows * shape.vocab,
                bytes = 4 * (floats + floats / 8);
  if (policy_model::KeptLogits::Fits(bytes, free - plan.total()))
    plan.Add("logits", bytes, "kept for the backward, where a quarter of what is free holds them");
}

MemoryPlan PlanOf(const Config& config, const ModelShape& policy, Device device) {
  ModelShape shape = policy;
  if (config.algorithm.name == configs::AlgorithmName::kRewardModel) shape.scalar_head = true;
  const policy_model::Weights weights = PlannedWeights(config, shape, PlanningStream(device));
  MemoryPlan plan = learner::PlanLearner(config, weights);
  const bool processes = config.run.roles == configs::Roles::kProcesses;
  const int64_t ranks = processes ? configs::ReadParallel(config.run.parallel).ranks() : 1;
  if (device.is_cuda()) plan.Add("CUDA", kCudaBytes, "the driver's, and what products work in");
  plan.Add("other ranks", (ranks - 1) * plan.total(),
           std::to_string(ranks - 1) + " more with as much");
  if (configs::IsOffline(config)) return plan;
  if (config.run.roles == configs::Roles::kCluster) {  // its actors are elsewhere
    if (device.is_cpu())
      plan.Add("hand-over", WeightBytes(weights, /*trained=*/false),
               "the newest version, kept for actors that join");
    // Of it an older one may be on its way, and what has changed since.
    const int64_t more = (config.run.relay > 0 || config.run.weight_deltas ? 1 : 0) +
                         (config.run.weight_deltas ? 1 : 0);
    if (device.is_cpu() && more > 0)
      plan.Add("weights in blocks", more * WeightBytes(weights, /*trained=*/true),
               "an older version that is on its way, and what has changed");
    return plan;
  }
  if (!configs::ActorsApart(config)) AddActors(config, weights, plan);
  AddHandOver(config, weights, plan);
  if (device.is_cpu() && processes) {
    const int64_t programs =
        1 + ranks + config.run.actors * config.rollout.tp + config.run.reward_workers;
    plan.Add("programs", programs * ResidentBytes(),
             std::to_string(programs) + " processes without their data");
  }
  return plan;
}

// What the learners of this machine keep in the host's memory.
MemoryPlan HostPlanOf(const Config& config, const ModelShape& policy, Device device) {
  if (device.is_cpu() || !config.optimizer.offload) return {};
  ModelShape shape = policy;
  if (config.algorithm.name == configs::AlgorithmName::kRewardModel) shape.scalar_head = true;
  MemoryPlan plan =
      learner::PlanHost(config, PlannedWeights(config, shape, PlanningStream(device)));
  const int64_t ranks = config.run.roles == configs::Roles::kProcesses
                            ? configs::ReadParallel(config.run.parallel).ranks()
                            : 1;
  plan.Add("other ranks", (ranks - 1) * plan.total(),
           std::to_string(ranks - 1) + " more with as much");
  return plan;
}

// What would make the run smaller.
std::string Smaller(const Config& config, const ModelShape& shape, Device device, int64_t total) {
  std::vector<std::pair<int64_t, std::string>> ways;
  const auto consider = [&](const std::string& words, const auto& change) {
    Config other = config;
    change(other);
    try {
      configs::CheckParallel(other, configs::ReadParallel(config.run.parallel).ranks());
    } catch (const Error&) {
      return;  // ranks do not do that
    }
    const int64_t saved = total - PlanOf(other, shape, device).total();
    if (saved > total / 100) ways.emplace_back(saved, words);
  };
  const configs::OptimizerConfig& o = config.optimizer;
  const configs::Parallel parallel = configs::ReadParallel(config.run.parallel);
  const bool whole = parallel.tp * parallel.pp == 1;  // of others ranks have parts of the model
  if (o.recompute == Recompute::kNone) {
    consider("optimizer.recompute = \"layer\"",
             [](Config& c) { c.optimizer.recompute = Recompute::kLayer; });
  }
  if (config.model.dtype == DType::kFloat32) {
    consider("model.dtype = \"bfloat16\"", [](Config& c) { c.model.dtype = DType::kBFloat16; });
  }
  if (whole && o.moments == configs::Moments::kFloat32) {
    consider("optimizer.moments = \"int8\"",
             [](Config& c) { c.optimizer.moments = configs::Moments::kInt8; });
  }
  if (whole && o.masters == configs::Masters::kFloat32 && config.model.dtype == DType::kBFloat16) {
    consider("optimizer.masters = \"none\"",
             [](Config& c) { c.optimizer.masters = configs::Masters::kNone; });
  }
  if (device.is_cuda() && !o.offload && o.name == configs::OptimizerName::kAdamW)
    consider("optimizer.offload = true", [](Config& c) { c.optimizer.offload = true; });
  if (whole && configs::MayNarrowGradients(config)) {
    consider("optimizer.gradients = \"bfloat16\"",
             [](Config& c) { c.optimizer.gradients = configs::Gradients::kBFloat16; });
  }
  if (parallel.dp > 1 && config.run.zero == 0)
    consider("run.zero = 1", [](Config& c) { c.run.zero = 1; });
  if (parallel.dp > 1 && parallel.pp == 1 && config.run.zero < 2)
    consider("run.zero = 2", [](Config& c) { c.run.zero = 2; });
  if (whole && config.policy.adapter == configs::Adapter::kNone &&
      config.model.products != configs::Products::kFp8 &&
      config.algorithm.name != configs::AlgorithmName::kRewardModel) {
    consider("policy.adapter = \"lora\"",
             [](Config& c) { c.policy.adapter = configs::Adapter::kLora; });
  }
  const int64_t half = o.micro_batch_tokens / 2;
  if (half > 0) {
    consider("optimizer.micro_batch_tokens = " + std::to_string(half),
             [&](Config& c) { c.optimizer.micro_batch_tokens = half; });
  }
  const int64_t kv = config.rollout.kv_budget_mb / 2;
  if (!configs::IsOffline(config) && kv > 0) {
    consider("rollout.kv_budget_mb = " + std::to_string(kv),
             [&](Config& c) { c.rollout.kv_budget_mb = kv; });
  }
  std::stable_sort(ways.begin(), ways.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::string out;
  for (const auto& [saved, words] : ways)
    out += (out.empty() ? "" : ", ") + words + " (" + SizeText(saved) + " less)";
  return out;
}

// The copy of a checkpoint is asked for and, on a GPU, the host has room for it; on the CPU it is
// part of the plan.
bool CopyFits(const Config& config, const ModelShape& shape, Device device, int64_t free) {
  if (!learner::CopiesCheckpoints(config)) return false;
  if (device.is_cpu() || free == 0) return true;
  const auto weights = PlannedWeights(config, shape, PlanningStream(device));
  return learner::CheckpointCopyBytes(config, weights) +
             HostPlanOf(config, shape, device).total() <=
         FreeHostBytes();
}

std::string WhoseMemory(Device device) {
  return device.is_cpu() ? "this machine" : DeviceName(device);
}

}  // namespace

int64_t FreeMemory(const Config& config, Device device) {
  if (config.run.memory_gb > 0)
    return std::max<int64_t>(1, static_cast<int64_t>(config.run.memory_gb * 1e9));
  return device.is_cpu() ? FreeHostBytes() : kernels::DeviceBytesFree(device);
}

std::string RunMemory::Line() const {
  const std::string beside =
      host.items.empty() ? ""
                         : "; in the host's memory " + host.Line() +
                               (host_free > 0 ? " of " + SizeText(host_free) + " free" : "");
  return "memory: at most " + plan.Line() + (free > 0 ? " of " + SizeText(free) + " free" : "") +
         beside +
         (recompute == Recompute::kLayer ? "; the backward computes each layer again" : "") +
         (waits_for_checkpoints ? "; no room for the copy of a checkpoint that is written in the "
                                  "background: the run waits while one is written"
                                : "");
}

void RunMemory::Check() const {
  if (fits()) return;
  if (!host_fits()) {
    throw Error(ErrorCode::kInvalidArgument,
                "optimizer.offload does not fit the memory of this machine: it takes " +
                    SizeText(host.total()) + " there and " + SizeText(host_free) +
                    " are free: " + host.Line() +
                    ". What makes it smaller: optimizer.moments = \"int8\", optimizer.masters = "
                    "\"none\", or leave optimizer.offload out");
  }
  throw Error(ErrorCode::kInvalidArgument,
              "the run does not fit the memory of " + WhoseMemory(device) + ": it takes up to " +
                  SizeText(plan.total()) + " and " + SizeText(free) + " are free: " + plan.Line() +
                  (smaller.empty() ? "" : ". What makes it smaller: " + smaller) +
                  ". Where there is more than that, run.memory_gb says how much");
}

RunMemory PlanRun(const Config& config, const ModelShape& shape, Device device, int64_t free) {
  const bool chosen = config.optimizer.recompute == Recompute::kAuto,
             copies = CopyFits(config, shape, device, free);
  Config planned = config;
  RunMemory memory{.device = device, .free = free, .plan = {}};
  // Of a card that is not here nobody knows what is beside it.
  if (kernels::DeviceBytesFree(device) > 0) memory.host_free = FreeHostBytes();
  // What costs least first: to wait for checkpoints, then to compute each layer twice.
  for (const Recompute recompute : {Recompute::kNone, Recompute::kLayer}) {
    if (!chosen && recompute == Recompute::kLayer) break;
    planned.optimizer.recompute = chosen ? recompute : config.optimizer.recompute;
    for (const bool background : {true, false}) {
      if (background && !copies) continue;
      planned.checkpoint.background = background;
      memory.plan = PlanOf(planned, shape, device);
      memory.host = HostPlanOf(planned, shape, device);
      if (memory.fits()) break;
    }
    if (memory.fits()) break;
  }
  memory.recompute = planned.optimizer.recompute;
  memory.waits_for_checkpoints =
      learner::CopiesCheckpoints(config) && !planned.checkpoint.background;
  memory.smaller = Smaller(planned, shape, device, memory.plan.total());
  if (memory.fits()) AddKeptLogits(planned, shape, device, free, memory.plan);
  return memory;
}

RunMemory PlanRun(const Session& session) {
  const Device device = session.stream().device();
  return PlanRun(session.config(), session.shape(), device, FreeMemory(session.config(), device));
}

std::optional<RunMemory> PlanActors(const Config& config, const ModelShape& shape,
                                    int64_t ranks_here, int64_t free) {
  if (configs::IsOffline(config) || !configs::ActorsApart(config, ranks_here)) return std::nullopt;
  const Device device = configs::ActorDevice(config, ranks_here);
  const policy_model::Weights weights = PlannedWeights(config, shape, PlanningStream(device));
  RunMemory memory{.device = device, .free = free, .plan = {}};
  AddActors(config, weights, memory.plan);
  Config other = config;
  other.rollout.kv_budget_mb /= 2;
  if (other.rollout.kv_budget_mb > 0) {
    memory.smaller = "rollout.kv_budget_mb = " + std::to_string(other.rollout.kv_budget_mb);
  }
  return memory;
}

std::optional<RunMemory> PlanActors(const Session& session, int ranks_here) {
  const Config& config = session.config();
  const Device device = configs::ActorDevice(config, ranks_here);
  return PlanActors(config, session.shape(), ranks_here, FreeMemory(config, device));
}

void RethrowWithPlan(const RunMemory& memory) {
  try {
    policy_model::RethrowOutOfMemory(memory.device);
  } catch (const policy_model::OutOfMemory& e) {
    throw Error(ErrorCode::kIo,
                e.message() + ". The run was planned to take up to " +
                    SizeText(memory.plan.total()) + " of " + SizeText(memory.free) + ": " +
                    memory.plan.Line() +
                    (memory.smaller.empty() ? "" : ". What makes it smaller: " + memory.smaller) +
                    ". Then --resume goes on from the last checkpoint");
  }
}

}  // namespace plumb::run
