#include "learner/loop/memory_plan.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <set>
#include <utility>

#include "common/base/error.h"
#include "common/base/size_text.h"
#include "configs/checks/distill_check.h"
#include "configs/parallel.h"
#include "kernels/update/adamw_compact.h"
#include "learner/algorithms/algorithm.h"
#include "learner/distill/teacher_folder.h"
#include "learner/offline/preference_batch.h"
#include "learner/update/checkpoint_size.h"
#include "learner/update/gradients/gradient_rooms.h"
#include "learner/update/offload/state_stream.h"
#include "learner/update/part_keeper.h"
#include "policy_model/families/experts/expert_share.h"
#include "policy_model/families/model_config.h"
#include "policy_model/families/stages/stage_shape.h"
#include "policy_model/families/tensor_share.h"

namespace plumb::learner {
namespace {

using configs::AlgorithmName;
using policy_model::PassBytes;
using policy_model::PassSize;
using policy_model::Weights;

std::string Parameters(int64_t n) {
  char text[40];
  if (n >= 1'000'000'000) std::snprintf(text, sizeof text, "%.2f B", static_cast<double>(n) / 1e9);
  else if (n >= 1'000'000) std::snprintf(text, sizeof text, "%.1f M", static_cast<double>(n) / 1e6);
  else std::snprintf(text, sizeof text, "%lld", static_cast<long long>(n));
  return std::string(text) + " parameters";
}

struct Counts {
  int64_t trained = 0, frozen = 0;  // elements that are stored: tensors and the padding behind them
  int64_t trained_parameters = 0, parameters = 0;  // of the tensors, as `plumb model info` counts
};

Counts CountsOf(const Weights& weights) {
  Counts counts;
  for (const auto& set : weights.sets()) {
    (set->trained ? counts.trained : counts.frozen) += set->flat.elements();
    counts.parameters += set->table->parameters();
    counts.trained_parameters += set->trained ? set->table->parameters() : 0;
  }
  return counts;
}

// LibTorch's attention on a GPU takes outputs and gradients of its own before they are copied: the
// queries', keys' and values' (these once for every query head) and sums in float.
int64_t GpuAttention(const Weights& weights, int64_t tokens) {
  if (weights.device().is_cpu()) return 0;
  const auto element = static_cast<int64_t>(ElementSize(weights.dtype()));
  const int64_t width = weights.shape().heads * weights.shape().head_dim;
  return tokens * width * (5 * element + 4);
}

bool HasReference(const configs::Config& config) {
  switch (config.algorithm.name) {
    case AlgorithmName::kDpo: return UsesReference(LossesOf(config.preference));
    case AlgorithmName::kRewardModel:
    case AlgorithmName::kSft: return false;
    default: return NeedsReference(config);
  }
}

// A copy of what is trained; adapters switched off need none, unless a warm start trained them.
int64_t ReferenceBytes(const configs::Config& config, const Weights& weights) {
  if (!HasReference(config)) return 0;
  const bool warm = !configs::IsOffline(config) && config.sft.steps > 0;
  if (!weights.base().trained && !warm) return 0;
  return CountsOf(weights).trained * static_cast<int64_t>(ElementSize(weights.dtype()));
}

int64_t TensorRanks(const configs::Config& config) {
  return configs::ReadParallel(config.run.parallel).tp;
}

int64_t ExpertRanksOf(const configs::Config& config) {
  return configs::ReadParallel(config.run.parallel).ep;
}

int64_t Stages(const configs::Config& config) {
  return configs::ReadParallel(config.run.parallel).pp;
}

void AddActivations(const configs::Config& config, const Weights& weights, const PassSize& size,
                    const std::string& of, MemoryPlan& plan, bool guest = false,
                    int64_t under_way = 1) {
  const bool again = config.optimizer.recompute == configs::Recompute::kLayer;
  // Of a base with adapters none read FP8: what a plan advises may be one.
  const bool fp8 = config.model.products == configs::Products::kFp8,
             dtype = fp8 && !weights.adapters().empty();
  const PassBytes pass = policy_model::BytesOfTraining(
      weights, size, again, guest, /*of_group=*/TensorRanks(config) > 1,
      dtype ? configs::Products::kDType : config.model.products);
  plan.Add("activations" + of, under_way * pass.saved,
           (under_way > 1 ? std::to_string(under_way) + " micro-batches under way of " : "") +
               std::to_string(size.tokens) + " tokens" + (under_way > 1 ? "" : " a micro-batch") +
               ", " + (again ? "of one layer and what goes into each" : "of all layers"));
  plan.Add("scratch" + of,
           under_way * (pass.scratch + policy_model::BytesOfPositions(weights)) +
               GpuAttention(weights, size.tokens),
           "logits, gradients of activations, tables of positions");
}

bool HasCritic(const configs::Config& config) {
  return config.algorithm.name == AlgorithmName::kPpo;
}

Weights OwnCritic(const configs::Config& config, const Weights& policy) {
  policy_model::ModelShape shape =
      config.critic.path.empty()
          ? policy.shape()
          : policy_model::ReadModelConfig(config.critic.path, policy.shape().max_positions);
  shape.scalar_head = true;
  return Weights::WithoutMemory(shape, policy.stream(), policy.dtype());
}

// That share out batches.
int64_t RanksOf(const configs::Config& config) {
  return configs::ReadParallel(config.run.parallel).sharing_batches();
}

// Stored elements of experts, which fewer ranks have where they are shared out.
int64_t ExpertElements(const Weights& weights) {
  int64_t n = 0;
  for (const auto& entry : weights.table().entries())
    n += policy_model::IsOfExperts(entry) ? entry.elements : 0;
  return n;
}

// run.zero reaches that far with these weights: gradients and weights of an adapter stay whole.
bool Spreads(const configs::Config& config, const Weights& weights, int64_t zero) {
  return RanksOf(config) > 1 && config.run.zero >= zero && (zero < 2 || weights.base().trained);
}

// Of one of the ranks that run.parallel names.
StateBytes StateOfRank(const configs::Config& config, const Weights& weights) {
  const Counts counts = CountsOf(weights);
  StateBytes state = BytesOfState(counts.trained, counts.frozen, weights.dtype(), config.optimizer);
  const int64_t ranks = RanksOf(config), rooms = RoomElements(BucketEnds(weights.base()));
  // Of what several ranks have all of; of experts that are shared out these are fewer.
  const int64_t ep = configs::ReadParallel(config.run.parallel).ep,
                experts = ep > 1 && counts.trained > 0 ? ExpertElements(weights) : 0;
  const auto part = [&](int64_t bytes) {
    const int64_t of_experts = experts == 0 ? 0 : bytes / counts.trained * experts;
    return (bytes - of_experts + ranks - 1) / ranks + of_experts * ep / ranks;
  };
  if (Spreads(config, weights, 1)) {
    state.masters = part(state.masters);
    state.moments = part(state.moments);
  }
  if (config.optimizer.gradients == configs::Gradients::kBFloat16 && weights.base().trained) {
    const auto& table = weights.table();
    const bool tied = !weights.shape().scalar_head && table.lm_head() == table.embedding();
    state.gradients +=
        GradientRoomElements(BucketEnds(weights.base()), tied) * int64_t{sizeof(float)};
  }
  if (Spreads(config, weights, 2))
    state.gradients = part(state.gradients) + rooms * int64_t{sizeof(float)};
  if (Spreads(config, weights, 3))
    state.weights =
        part(state.weights) + rooms * static_cast<int64_t>(ElementSize(weights.dtype()));
  return state;
}

// optimizer.offload: what goes to the host's memory, and on the device the rooms it goes through.
struct Placed {
  int64_t device = 0;  // of state.masters and state.moments
  int64_t rooms = 0;
  int64_t host_masters = 0, host_moments = 0;
};
Placed PlaceState(const configs::Config& config, const Weights& weights, const StateBytes& state) {
  if (!config.optimizer.offload) return {.device = state.masters + state.moments};
  int64_t largest = 0;
  for (const auto& set : weights.sets())
    largest = std::max(largest, set->trained ? set->flat.elements() : 0);
  if (Spreads(config, weights, 1)) largest = (largest + RanksOf(config) - 1) / RanksOf(config);
  const StateForm form{.masters = state.masters > 0,
                       .in_8_bits = config.optimizer.moments == configs::Moments::kInt8};
  return {.rooms = StateStream::RoomBytes(largest, form),
          .host_masters = state.masters,
          .host_moments = state.moments};
}

// Teachers in this process: weights, and a forward that tells its likeliest tokens.
void AddTeachers(const configs::Config& config, const Weights& policy, const PassSize& size,
                 MemoryPlan& plan) {
  std::set<std::string> folders;
  for (const configs::TeacherName& name : configs::ReadTeachers(config.distill.teachers)) {
    if (name.self() || name.remote() || !folders.insert(name.where).second) continue;
    const TeacherFolder folder = TeacherFolderOf(name.where);
    Weights teacher = Weights::WithoutMemory(
        policy_model::ReadModelConfig(folder.base, policy.shape().max_positions), policy.stream(),
        policy.dtype());
    if (!folder.adapter.empty())
      teacher.AddAdapter(policy_model::ReadAdapterConfig(folder.adapter).spec, 0);
    int64_t bytes = 0;
    for (const auto& set : teacher.sets()) {
      if (set == teacher.sets().front() && SharesBase(folder, config, policy)) continue;
      bytes += static_cast<int64_t>(set->flat.bytes());
    }
    plan.Add("teacher", bytes, Parameters(CountsOf(teacher).parameters) + ", " + name.where);
    const PassBytes pass = policy_model::BytesOfScoring(teacher, size, /*guest=*/true);
    plan.Add("scratch (teacher)", pass.total() + policy_model::BytesOfPositions(teacher),
             "one layer's activations, logits");
  }
}

void AddCritic(const configs::Config& config, const Weights& policy, const PassSize& size,
               MemoryPlan& plan, MemoryPlan& host) {
  if (!HasCritic(config)) return;
  if (config.critic.mode == configs::CriticMode::kShared) {
    const int64_t head = policy.shape().hidden;
    configs::OptimizerConfig of_head = config.optimizer;
    of_head.gradients = configs::Gradients::kFloat32;
    plan.Add("critic", BytesOfState(head, 0, policy.dtype(), of_head).total(),
             "a head on the policy's trunk");
    return;
  }
  const Weights critic = OwnCritic(config, policy);
  const Counts counts = CountsOf(critic);
  const StateBytes state = StateOfRank(config, critic);
  const Placed placed = PlaceState(config, critic, state);
  plan.Add("critic", state.weights + state.gradients + placed.device + placed.rooms,
           Parameters(counts.parameters) + (config.optimizer.offload
                                                ? " with their gradients"
                                                : " with their masters, gradients and moments"));
  host.Add("critic", placed.host_masters + placed.host_moments, "its masters and moments");
  AddActivations(config, critic, size, " (critic)", plan);
}

}  // namespace

StateBytes BytesOfState(int64_t trained, int64_t frozen, DType type,
                        const configs::OptimizerConfig& options) {
  const auto size = static_cast<int64_t>(ElementSize(type));
  const int64_t f = sizeof(float);
  const bool masters = type != DType::kFloat32 && options.masters == configs::Masters::kFloat32;
  const int64_t moments = options.moments == configs::Moments::kFloat32
                              ? 2 * trained * f
                              : 2 * (trained + kernels::MomentBlocks(trained) * f);
  return {.weights = (trained + frozen) * size,
          .masters = masters ? trained * f : 0,
          .gradients = trained * (options.gradients == configs::Gradients::kFloat32 ? f : 2),
          .moments = moments};
}

bool CopiesCheckpoints(const configs::Config& config) {
  // Ranks that keep a part of a checkpoint each hand it over while it is written
  // (Optimizer::spread).
  if (TensorRanks(config) > 1 || Stages(config) > 1 || ExpertRanksOf(config) > 1 ||
      config.experts.sync_every > 1)
    return false;
  if (configs::ReadParallel(config.run.parallel).dp > 1 &&
      (config.run.zero > 0 || config.run.gradient_wire != configs::GradientWire::kFloat32))
    return false;
  const int64_t every = config.run.checkpoint_every,
                warm = configs::IsOffline(config) ? 0 : config.sft.steps;
  return config.checkpoint.background && every > 0 && every < std::max(config.run.steps, warm);
}

int64_t CheckpointCopyBytes(const configs::Config& config, const Weights& weights) {
  const auto bytes = [&](int64_t trained) {
    const StateBytes state = BytesOfState(trained, 0, weights.dtype(), config.optimizer);
    const bool moments = config.checkpoint.optimizer != configs::KeepOptimizer::kNever;
    return state.weights + state.masters + (moments ? state.moments : 0);
  };
  int64_t sum = bytes(CountsOf(weights).trained);
  if (!HasCritic(config)) return sum;
  const bool shared = config.critic.mode == configs::CriticMode::kShared;
  return sum +
         bytes(shared ? weights.shape().hidden : CountsOf(OwnCritic(config, weights)).trained);
}

void MemoryPlan::Add(std::string kind, int64_t bytes, std::string what) {
  if (bytes > 0) items.push_back({std::move(kind), bytes, std::move(what)});
}

int64_t MemoryPlan::total() const {
  int64_t sum = 0;
  for (const MemoryItem& item : items) sum += item.bytes;
  return sum;
}

std::string MemoryPlan::Line() const {
  std::string out;
  for (const MemoryItem& item : items)
    out += (out.empty() ? "" : " + ") + item.kind + " " + SizeText(item.bytes);
  return out + " = " + SizeText(total());
}

std::string MemoryPlan::Text() const {
  std::string out;
  const auto line = [&](const std::string& kind, int64_t bytes, const std::string& what) {
    const std::string size = SizeText(bytes);
    out += kind + std::string(kind.size() < 22 ? 22 - kind.size() : 1, ' ') +
           std::string(size.size() < 10 ? 10 - size.size() : 1, ' ') + size +
           (what.empty() ? "" : "  " + what) + "\n";
  };
  for (const MemoryItem& item : items) line(item.kind, item.bytes, item.what);
  line("in all", total(), "");
  return out;
}

PassSize LargestBatch(const configs::Config& config, const policy_model::ModelShape& shape) {
  const bool offline = configs::IsOffline(config);
  int64_t longest = config.sft.max_tokens, sequences = config.sft.batch, together = 1;
  if (offline && config.algorithm.name != AlgorithmName::kSft) {
    longest = config.preference.max_tokens;
    together = 2;  // a micro-batch never parts a pair
    sequences = 2 * config.preference.batch;
  }
  longest = std::min(longest, shape.max_positions);
  if (!offline) {
    const bool warm = config.sft.steps > 0;
    const int64_t answered = std::min(config.data.max_prompt_tokens + config.rollout.max_new_tokens,
                                      shape.max_positions),
                  answers = config.rollout.prompts_per_step * config.rollout.samples_per_prompt;
    const int64_t demonstrated = warm ? sequences * longest : 0;
    longest = warm ? std::max(longest, answered) : answered;
    sequences = (std::max(demonstrated, answers * answered) + longest - 1) / longest;
  }
  const int64_t tokens = std::max(
      together * longest, std::min(config.optimizer.micro_batch_tokens, sequences * longest));
  return {.tokens = tokens, .rows = tokens, .longest = longest};
}

namespace {

struct StagePlan {
  MemoryPlan device, host;
};

// Of a rank that has this stage; of a model that is not cut into stages, 0.
StagePlan PlanStage(const configs::Config& config, const Weights& whole, int64_t stage) {
  const int64_t together = TensorRanks(config), stages = Stages(config),
                experts = ExpertRanksOf(config);
  std::optional<Weights> share;
  std::string which;
  if (stages > 1) {
    const auto ranges =
        policy_model::StagesOf(whole.shape(), static_cast<int>(stages), "run.parallel");
    const policy_model::LayerRange& layers = ranges[static_cast<size_t>(stage)];
    share =
        Weights::WithoutMemory(policy_model::StageShape(whole.shape(), static_cast<int>(stage),
                                                        static_cast<int>(stages), "run.parallel"),
                               whole.stream(), whole.dtype());
    which = "stage " + std::to_string(stage + 1) + " of " + std::to_string(stages) + ", layers " +
            std::to_string(layers.begin) + " to " + std::to_string(layers.end - 1) + ", ";
  }
  if (experts > 1) {
    which = "with the experts of one of " + std::to_string(experts) + ", ";
    share = Weights::WithoutMemory(
        policy_model::ExpertShareOf(whole.shape(), 0, static_cast<int>(experts), "run.parallel"),
        whole.stream(), whole.dtype());
  }
  if (together > 1) {
    which = "the share of one of " + std::to_string(together) + ", ";
    share = Weights::WithoutMemory(
        policy_model::ShareOf(whole.shape(), 0, static_cast<int>(together), "run.parallel"),
        whole.stream(), whole.dtype());
  }
  const Weights& weights = share ? *share : whole;
  const Counts counts = CountsOf(weights);
  const StateBytes state = StateOfRank(config, weights);
  const auto part = [&](int64_t zero) {
    if (!Spreads(config, weights, zero)) return std::string();
    return "a part of " + std::to_string(RanksOf(config)) +
           (zero > 1 ? " and rooms for layers, " : ", ");
  };
  const std::string trained = Parameters(counts.trained_parameters) + " trained",
                    type = configs::NameOf(config.model.dtype);
  StagePlan both;
  MemoryPlan& plan = both.device;
  const Placed placed = PlaceState(config, weights, state);
  const bool offload = config.optimizer.offload;
  plan.Add("weights", state.weights, which + part(3) + Parameters(counts.parameters) + ", " + type);
  (offload ? both.host : plan).Add("masters", state.masters, part(1) + "float32, " + trained);
  const bool narrow = config.optimizer.gradients == configs::Gradients::kBFloat16;
  plan.Add("gradients", state.gradients,
           part(2) + NameOf(config.optimizer.gradients) +
               (narrow ? " and a layer's in float32, " : ", ") + trained);
  (offload ? both.host : plan)
      .Add("moments", state.moments, part(1) + "two, " + NameOf(config.optimizer.moments));
  plan.Add("offload rooms", placed.rooms,
           "two, through which masters and moments come from the host's memory");
  if (share || Spreads(config, weights, 3)) {
    plan.Add("whole weights", static_cast<int64_t>(whole.flat().bytes()),
             share && !configs::IsOffline(config)
                 ? "from which answers are generated, and checkpoints written"
                 : "as they are loaded, and while a checkpoint is written");
  }
  const PassSize size = LargestBatch(config, weights.shape());
  PassSize pass = size;
  if (stage + 1 < stages) pass.rows = 0;  // the last stage scores them
  AddActivations(config, weights, pass, "", plan,
                 /*guest=*/configs::Distills(config) || config.preference.weighted,
                 /*under_way=*/stages - stage);
  plan.Add("reference", ReferenceBytes(config, weights), "the policy as it was, " + type);
  AddTeachers(config, weights, size, plan);
  AddCritic(config, weights, size, plan, both.host);
  if (CopiesCheckpoints(config) && weights.device().is_cpu())
    plan.Add("checkpoint copy", CheckpointCopyBytes(config, weights),
             "written while the run goes on (checkpoint.background)");
  return both;
}

StagePlan PlanRank(const configs::Config& config, const Weights& whole) {
  if (Stages(config) > 1 && TensorRanks(config) > 1) {
    throw Error(ErrorCode::kUnsupported,
                "asks for tp and pp at once, which no run does in this version: leave one out",
                "run.parallel");
  }
  if (Stages(config) > 1) {
    // As much as the stage that takes most of all.
    StagePlan most;
    for (int64_t stage = 0; stage < Stages(config); ++stage) {
      StagePlan plan = PlanStage(config, whole, stage);
      if (plan.device.total() > most.device.total()) most = std::move(plan);
    }
    return most;
  }
  return PlanStage(config, whole, 0);
}

}  // namespace

MemoryPlan PlanLearner(const configs::Config& config, const Weights& whole) {
  return PlanRank(config, whole).device;
}

MemoryPlan PlanHost(const configs::Config& config, const Weights& whole) {
  return config.optimizer.offload ? PlanRank(config, whole).host : MemoryPlan();
}

}  // namespace plumb::learner
