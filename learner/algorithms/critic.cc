#include "learner/algorithms/critic.h"

#include <algorithm>

#include <cstring>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/text/tokenizer/tokenizer.h"
#include "policy_model/families/model_config.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/memory/scalar_head.h"

namespace plumb::learner {
namespace {

using policy_model::Weights;

// The same token numbers have to mean the same text to both.
void CheckTokenizer(const std::string& critic, const configs::ModelConfig& model) {
  const std::string policy =
      model.path.empty() ? "the built-in vocabulary " + NameOf(model.vocabulary) : model.path;
  const auto ours = model.path.empty() ? Tokenizer::BuiltIn(NameOf(model.vocabulary))
                                       : Tokenizer::Load(model.path);
  const auto theirs = Tokenizer::Load(critic);
  int32_t different = ours->size() == theirs->size() ? -1 : std::min(ours->size(), theirs->size());
  for (int32_t id = 0; id < std::min(ours->size(), theirs->size()); ++id) {
    if (ours->TokenBytes(id) == theirs->TokenBytes(id)) continue;
    different = id;
    break;
  }
  if (different < 0) return;
  throw Error(ErrorCode::kInvalidArgument,
              "the critic's tokenizer is not the policy's (" + policy +
                  "): they differ from token " + std::to_string(different) +
                  " on; train a critic from the policy (leave critic.path empty) or name one of "
                  "the same tokenizer",
              critic);
}

policy_model::ModelShape CheckedShape(const configs::Config& config,
                                      const policy_model::ModelShape& policy) {
  const std::string& path = config.critic.path;
  policy_model::ModelShape shape = policy_model::ReadModelConfig(path, policy.max_positions);
  if (shape.vocab != policy.vocab) {
    throw Error(ErrorCode::kInvalidArgument,
                "the critic has a vocabulary of " + std::to_string(shape.vocab) +
                    ", the policy of " + std::to_string(policy.vocab) +
                    ": they have to share a tokenizer",
                path);
  }
  if (RealFileSystem().Exists(path + "/tokenizer.json")) CheckTokenizer(path, config.model);
  if (!shape.scalar_head) {
    throw Error(ErrorCode::kInvalidArgument,
                "is not a model with a scalar head (config.json names no "
                "...ForSequenceClassification): name a reward model "
                "or critic, or leave critic.path empty to start from the policy",
                path);
  }
  return shape;
}

Weights LoadCritic(const configs::Config& config, const Weights& policy) {
  Weights weights(CheckedShape(config, policy.shape()), policy.flat().stream(),
                  policy.flat().dtype());
  weights.Load(config.critic.path);
  return weights;
}

// A head that knows nothing says 0. A drawn one says numbers of size 1 at random: the first
// advantages would be its noise.
Weights WithZeroHead(Weights weights) {
  std::vector<std::byte> host(weights.flat().bytes());
  weights.flat().CopyToHost(host);
  const size_t element = ElementSize(weights.flat().dtype());
  std::memset(host.data() + static_cast<size_t>(weights.table().score()) * element, 0,
              static_cast<size_t>(weights.shape().hidden) * element);
  weights.flat().CopyFromHost(host);
  return weights;
}

Weights MakeCritic(const configs::Config& config, const Weights& policy) {
  if (config.critic.mode == configs::CriticMode::kShared)
    return WithZeroHead(policy_model::ValueHeadFor(policy, config.run.seed));
  if (!config.critic.path.empty()) return LoadCritic(config, policy);
  return WithZeroHead(policy_model::ScalarHeadFrom(policy, config.run.seed));
}

constexpr uint64_t kCriticSeed = uint64_t{0x637269746963} << 16;  // its roundings are its own

configs::OptimizerConfig OptimizerOf(const configs::Config& config) {
  configs::OptimizerConfig options = config.optimizer;
  options.learning_rate = config.critic.learning_rate;
  return options;
}

// A shared head has the scale of the policy's passes, in which it is computed.
TrainingRules RulesOf(const configs::Config& config) {
  return {.seed = config.run.seed ^ kCriticSeed,
          .scale_loss = config.model.products == configs::Products::kFp16 &&
                        config.critic.mode == configs::CriticMode::kOwn};
}

// The gradients of a shared head come from the policy's passes, which know no parts of them.
Sharing SharingOfCritic(const configs::Config& config, Ranks* ranks) {
  Sharing sharing = SharingOf(config, ranks);
  if (config.critic.mode == configs::CriticMode::kShared)
    sharing.zero = std::min<int64_t>(sharing.zero, 1);
  return sharing;
}

}  // namespace

void CheckCritic(const configs::Config& config, const policy_model::ModelShape& policy) {
  if (config.critic.mode == configs::CriticMode::kOwn && !config.critic.path.empty())
    CheckedShape(config, policy);
}

Critic::Critic(const configs::Config& config, const Weights& policy, TrainStep& policy_train)
    : weights_(MakeCritic(config, policy)),
      optimizer_(weights_, OptimizerOf(config), RulesOf(config),
                 SharingOfCritic(config, policy_train.ranks())),
      policy_train_(policy_train) {
  if (config.critic.mode == configs::CriticMode::kShared) return;
  transformer_ = std::make_unique<policy_model::Transformer>(
      weights_.shape(), weights_.flat().stream(), weights_.flat().dtype());
  transformer_->RecomputeLayers(config.optimizer.recompute == configs::Recompute::kLayer);
  transformer_->UseProducts(config.model.products);
  train_ = std::make_unique<TrainStep>(*transformer_, config.optimizer.micro_batch_tokens,
                                       policy_train.ranks());
  train_->UsePartsOf(weights_, optimizer_);
}

std::vector<std::vector<float>> Critic::Values(const Weights& policy,
                                               std::span<const SequenceView> sequences) {
  return shared() ? policy_train_.HeadValues(policy, weights_, sequences)
                  : train_->Values(weights_, sequences);
}

void Critic::Accumulate(std::span<const SequenceView> sequences, const TrainStep::TokenLoss& loss) {
  PLUMB_CHECK(!shared(), "a shared head is trained together with the policy");
  train_->AccumulateValues(weights_, sequences, loss, optimizer_.gradients());
}

}  // namespace plumb::learner
