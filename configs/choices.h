// The options of a recipe that are one of a few names: an enum each, and the one table of its
// names.
//
// Purpose: a name is written in its table here and nowhere else. Reading a recipe, writing it back,
// `plumb config show`, the errors that list what there is, and the rooms that switch over the value
// all go by it. To add a value: an enumerator and its name at the same place (the table's order is
// the enum's), and a case where the compiler says that one is missing.
// Thread safety: pure functions. Errors: none; a name that is not known is nullopt.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/dtype.h"

namespace plumb::configs {

template <class E>
inline constexpr std::array<std::string_view, 0> kNames = {};
template <class E>
concept Choice = kNames<E>
.size() > 0;

// One process for all roles, or one for each: on this machine, or on any that join run.listen.
enum class Roles : uint8_t { kLocal, kProcesses, kCluster };
template <>
inline constexpr auto kNames<Roles> = std::to_array<std::string_view>({"local", "processes",
                                                                       "cluster"});

// Which weights answer for which step: batch k by version k, or by one a bounded number of versions
// behind.
enum class Schedule : uint8_t { kSync, kAsync };
template <>
inline constexpr auto kNames<Schedule> = std::to_array<std::string_view>({"sync", "async"});

// Of weights and activations: the first two.
template <>
inline constexpr auto kNames<DType> = std::to_array<std::string_view>({"float32", "bfloat16"});

// What of a model is trained: all of it, or a low-rank adapter on a base that stays as it is.
enum class Adapter : uint8_t { kNone, kLora };
template <>
inline constexpr auto kNames<Adapter> = std::to_array<std::string_view>({"none", "lora"});

// What turns the router's logits into weights.
enum class Router : uint8_t { kSoftmax, kSigmoid };
template <>
inline constexpr auto kNames<Router> = std::to_array<std::string_view>({"softmax", "sigmoid"});

// Keys and values of every head, or one latent vector a token that all heads share (MLA).
enum class AttentionKind : uint8_t { kFull, kLatent };
template <>
inline constexpr auto kNames<AttentionKind> = std::to_array<std::string_view>({"full", "latent"});

// How generation keeps keys and values: as the model computes, or in fewer bits with scales.
enum class KvType : uint8_t { kModel, kInt8, kFp8, kInt4 };
template <>
inline constexpr auto kNames<KvType> = std::to_array<std::string_view>({"model", "int8", "fp8",
                                                                        "int4"});

// As what gradients travel between ranks; int8 keeps what rounding lost for the next step.
enum class GradientWire : uint8_t { kFloat32, kBFloat16, kInt8 };
template <>
inline constexpr auto kNames<GradientWire> = std::to_array<std::string_view>({"float32", "bfloat16",
                                                                              "int8"});

enum class Vocabulary : uint8_t { kArithmetic, kBytes };
template <>
inline constexpr auto kNames<Vocabulary> = std::to_array<std::string_view>({"arithmetic", "bytes"});

// What becomes of a sequence that is too long: the run ends, the row is left out, or the side that
// is named is cut off.
enum class OverlongPolicy : uint8_t { kError, kDrop, kLeft, kRight };
template <>
inline constexpr auto kNames<OverlongPolicy> = std::to_array<std::string_view>({"error", "drop",
                                                                                "left", "right"});

// wsd: the peak is kept until the last part of the run (warm-up, stable, decay).
enum class LrSchedule : uint8_t { kConstant, kLinear, kCosine, kWsd };
template <>
inline constexpr auto kNames<LrSchedule> = std::to_array<std::string_view>({"constant", "linear",
                                                                            "cosine", "wsd"});

// What the optimizer keeps of bfloat16 weights besides them: float32 copies that it updates, or
// nothing, and the weights are rounded up or down at random.
enum class Masters : uint8_t { kFloat32, kNone };
template <>
inline constexpr auto kNames<Masters> = std::to_array<std::string_view>({"float32", "none"});

// How the optimizer keeps its two moments.
enum class Moments : uint8_t { kFloat32, kInt8 };
template <>
inline constexpr auto kNames<Moments> = std::to_array<std::string_view>({"float32", "int8"});

// How gradients are kept until the update.
enum class Gradients : uint8_t { kFloat32, kBFloat16 };
template <>
inline constexpr auto kNames<Gradients> = std::to_array<std::string_view>({"float32", "bfloat16"});

// What a teacher's and a student's distribution are compared by: the reverse KL by its two
// estimators on the student's tokens, the forward KL over the teacher's likeliest tokens, the
// generalised Jensen-Shannon divergence.
enum class Distance : uint8_t { kReverseK1, kReverseK3, kForwardTopK, kJsd };
template <>
inline constexpr auto kNames<Distance> =
    std::to_array<std::string_view>({"reverse_k1", "reverse_k3", "forward_top_k", "jsd"});

// What the learner's products of layers read: numbers as model.dtype has them, or FP8 (e4m3
// forward, e5m2 gradients) with a scale a row.
enum class Products : uint8_t { kDType, kFp8, kFp16 };
template <>
inline constexpr auto kNames<Products> = std::to_array<std::string_view>({"dtype", "fp8", "fp16"});

// What an answer that runs on under new weights does with the keys and values of the old ones.
enum class KvAfterUpdate : uint8_t { kKeep, kRecompute };
template <>
inline constexpr auto kNames<KvAfterUpdate> = std::to_array<std::string_view>({"keep",
                                                                               "recompute"});

// Activations that a backward computes again instead of keeping them: of no layer or of every
// layer; auto: of every layer where the others do not fit.
enum class Recompute : uint8_t { kAuto, kNone, kLayer };
template <>
inline constexpr auto kNames<Recompute> = std::to_array<std::string_view>({"auto", "none",
                                                                           "layer"});

// Whether a checkpoint holds the optimizer's state: until the run has done its steps (then only the
// weights stay), for good, or not at all.
enum class KeepOptimizer : uint8_t { kUntilEnd, kAlways, kNever };
template <>
inline constexpr auto kNames<KeepOptimizer> = std::to_array<std::string_view>({"until_end",
                                                                               "always", "never"});

// Which answers of a step go to samples.jsonl: two of one prompt, or all.
enum class SampleLog : uint8_t { kSome, kAll };
template <>
inline constexpr auto kNames<SampleLog> = std::to_array<std::string_view>({"some", "all"});

// Who is told a run's metrics besides (tools/follow_metrics.py).
enum class Follow : uint8_t { kNone, kWandb, kTrackio, kMlflow };
template <>
inline constexpr auto kNames<Follow> = std::to_array<std::string_view>({"none", "wandb", "trackio",
                                                                        "mlflow"});

// How a step's prompts are chosen (replay/table/sampler.h), and which earlier groups come with
// them.
enum class PromptSampler : uint8_t {
  kPasses,
  kUniform,
  kPrioritised,
  kGroup,
  kStratified,
  kCurriculum,
  kDifficulty
};
template <>
inline constexpr auto kNames<PromptSampler> = std::to_array<std::string_view>(
    {"passes", "uniform", "prioritised", "group", "stratified", "curriculum", "difficulty"});

enum class SamplerKind : uint8_t {
  kFifo,
  kUniform,
  kPrioritised,
  kGroup,
  kStratified,
  kCurriculum,
  kDifficulty
};
template <>
inline constexpr auto kNames<SamplerKind> = std::to_array<std::string_view>(
    {"fifo", "uniform", "prioritised", "group", "stratified", "curriculum", "difficulty"});

// Who leaves when there are too many.
enum class Evict : uint8_t { kOldest, kLowestPriority };
template <>
inline constexpr auto kNames<Evict> = std::to_array<std::string_view>({"oldest",
                                                                       "lowest_priority"});

// What becomes of a training group in which an answer that was generated has no score: none of it
// trains, its prompt is handed out again (a bounded number of times), or such an answer gets a
// fixed reward.
enum class OnFailure : uint8_t { kDropGroup, kRequeue, kPenalty };
template <>
inline constexpr auto kNames<OnFailure> = std::to_array<std::string_view>({"drop_group", "requeue",
                                                                           "penalty"});

// Whose protocol an HTTP server of rewards speaks.
enum class HttpApi : uint8_t { kNone, kOpenRlhf, kSlime };
template <>
inline constexpr auto kNames<HttpApi> = std::to_array<std::string_view>({"", "openrlhf", "slime"});

enum class AlgorithmName : uint8_t {
  kGrpo,
  kDrGrpo,
  kDapo,
  kGspo,
  kRloo,
  kReinforcePlusPlus,
  kCispo,
  kPpo,
  kDpo,
  kRewardModel,
  kSft,
};
template <>
inline constexpr auto kNames<AlgorithmName> =
    std::to_array<std::string_view>({"grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce++",
                                     "cispo", "ppo", "dpo", "reward_model", "sft"});

// learner/algorithms/returns.h
enum class Advantage : uint8_t {
  kGroup,
  kLeaveOneOut,
  kBatch,
  kGroupMeanBatchStd,  // REINFORCE++-baseline
  kGreedy,             // ReMax
  kOptimal,            // OPO
  kPassK,
};
template <>
inline constexpr auto kNames<Advantage> = std::to_array<std::string_view>(
    {"group", "leave_one_out", "batch", "group_mean_batch_std", "greedy", "optimal", "pass_k"});

// What standard deviation advantages are divided by, where algorithm.advantage_std is on.
enum class StdOver : uint8_t { kGroup, kBatch };
template <>
inline constexpr auto kNames<StdOver> = std::to_array<std::string_view>({"group", "batch"});

// Several reward parts: their weighted sum is normalised, or each of them is and then they are
// added (GDPO).
enum class RewardAggregation : uint8_t { kSumThenNormalize, kNormalizeThenSum };
template <>
inline constexpr auto kNames<RewardAggregation> =
    std::to_array<std::string_view>({"sum_then_normalize", "normalize_then_sum"});

// learner/algorithms/answer_loss.h
enum class Objective : uint8_t {
  kClip,
  kCispo,
  kSapo,
  kGeometric,  // GMPO
  kVespo,
  kPolicyGradient,  // GPG
  kDro,
  kDppoTv,
  kDppoKl,
  kClipCov,
  kKlCov,
};
template <>
inline constexpr auto kNames<Objective> = std::to_array<std::string_view>(
    {"clip", "cispo", "sapo", "geometric", "vespo", "policy_gradient", "dro", "dppo_tv", "dppo_kl",
     "clip_cov", "kl_cov"});

enum class RatioLevel : uint8_t { kToken, kSequence, kProduct };
template <>
inline constexpr auto kNames<RatioLevel> = std::to_array<std::string_view>({"token", "sequence",
                                                                            "product"});

// learner/algorithms/policy_loss.h
enum class KlEstimator : uint8_t { kK1, kK2, kK3, kAbs };
template <>
inline constexpr auto kNames<KlEstimator> = std::to_array<std::string_view>({"k1", "k2", "k3",
                                                                             "abs"});

enum class KlPlacement : uint8_t { kLoss, kReward };
template <>
inline constexpr auto kNames<KlPlacement> = std::to_array<std::string_view>({"loss", "reward"});

// How token losses become one number: the mean over all tokens of the batch; the mean over
// sequences of the mean over their tokens; the sum / (sequences * max_new_tokens); the mean over
// sequences of the sum over their tokens.
enum class Aggregation : uint8_t { kToken, kSequence, kConstant, kSequenceSum };
template <>
inline constexpr auto kNames<Aggregation> =
    std::to_array<std::string_view>({"token", "sequence", "constant", "sequence_sum"});

// learner/algorithms/off_policy.h
enum class OffPolicy : uint8_t {
  kOff,
  kTokenTruncate,
  kTokenMask,
  kSequenceTruncate,
  kSequenceMask,
  kGeometricMask,  // by the geometric mean of the answer's weights
  kKlMask,         // by the k3 estimate of the answer's divergence
};
template <>
inline constexpr auto kNames<OffPolicy> =
    std::to_array<std::string_view>({"off", "token_truncate", "token_mask", "sequence_truncate",
                                     "sequence_mask", "geometric_mask", "kl_mask"});

enum class KlController : uint8_t { kFixed, kAdaptive };
template <>
inline constexpr auto kNames<KlController> = std::to_array<std::string_view>({"fixed", "adaptive"});

// By the running moments of the score: not at all, by its deviation, or by mean and deviation.
enum class RewardNormalization : uint8_t { kOff, kScale, kWhiten };
template <>
inline constexpr auto kNames<RewardNormalization> = std::to_array<std::string_view>({"off", "scale",
                                                                                     "whiten"});

// A model of its own, or a head on the policy.
enum class CriticMode : uint8_t { kOwn, kShared };
template <>
inline constexpr auto kNames<CriticMode> = std::to_array<std::string_view>({"own", "shared"});

// learner/offline/preference_loss.h; kKto is a loss of judged completions, the others of pairs.
enum class PreferenceLossKind : uint8_t {
  kSigmoid,
  kHinge,
  kIpo,
  kRobust,
  kSimpo,
  kOrpo,
  kKto,
  kExoPair,
  kNcaPair,
  kBcoPair,
  kSppoHard,
  kAot,
  kAotUnpaired,
  kApoZero,
  kApoDown,
  kDiscopop,
  kSft,
  kSigmoidNorm,
};
template <>
inline constexpr auto kNames<PreferenceLossKind> = std::to_array<std::string_view>(
    {"sigmoid", "hinge", "ipo", "robust", "simpo", "orpo", "kto", "exo_pair", "nca_pair",
     "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft",
     "sigmoid_norm"});

// By which divergence the policy is held to the reference (preference losses of log-ratios).
enum class Divergence : uint8_t { kReverseKl, kForwardKl, kJensenShannon, kAlpha };
template <>
inline constexpr auto kNames<Divergence> = std::to_array<std::string_view>(
    {"reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"});

// What turns gradients into updates; muon: of matrices inside the layers, AdamW for the rest.
enum class OptimizerName : uint8_t { kAdamW, kMuon };
template <>
inline constexpr auto kNames<OptimizerName> = std::to_array<std::string_view>({"adamw", "muon"});

// Who answers what the policy writes in a conversation of several turns
// (environment/environments.h).
enum class EnvironmentKind : uint8_t {
  kNone,
  kCalculator,
  kTools,    // built-in tools: environment.tools
  kProgram,  // JSON lines
  kPlugin,   // C ABI
  kHttp,
  kPython,  // a file with a class or functions, in the forms of TRL, verl, OpenRLHF or Gym
  kAgent,   // a program that calls the run's OpenAI-compatible endpoint
};
template <>
inline constexpr auto kNames<EnvironmentKind> = std::to_array<std::string_view>(
    {"none", "calculator", "tools", "program", "plugin", "http", "python", "agent"});

// In what form a model writes its calls of tools; auto: by the model's family.
enum class ToolForm : uint8_t { kAuto, kHermes, kLlama3, kMistral, kDeepseek, kHarmony };
template <>
inline constexpr auto kNames<ToolForm> =
    std::to_array<std::string_view>({"auto", "hermes", "llama3", "mistral", "deepseek", "harmony"});

template <Choice E>
std::string NameOf(E value) {
  return std::string(kNames<E>[static_cast<size_t>(value)]);
}

template <Choice E>
std::optional<E> FromName(std::string_view name) {
  const auto found = std::find(kNames<E>.begin(), kNames<E>.end(), name);
  if (found == kNames<E>.end()) return std::nullopt;
  return static_cast<E>(found - kNames<E>.begin());
}

// For messages and help, without a name that is empty.
template <Choice E>
std::string ListOfNames(std::string_view between = ", ") {
  std::string out;
  for (const std::string_view name : kNames<E>) {
    if (!name.empty()) out.append(out.empty() ? "" : between).append(name);
  }
  return out;
}

}  // namespace plumb::configs
