#include "reward/reward_model.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <mutex>
#include <nlohmann/json.hpp>

#include "common/file.h"
#include "policy_model/files/model_config.h"
#include "policy_model/packing.h"
#include "policy_model/transformer.h"
#include "policy_model/weights.h"

namespace plumb::reward {
namespace {

struct Options {
  std::string dtype;  // empty: the folder's
  int64_t batch_tokens = 8192;
};

[[noreturn]] void Refuse(const configs::RewardPartConfig& part, const std::string& message,
                         ErrorCode code = ErrorCode::kInvalidArgument) {
  throw Error(code, message, "reward part '" + part.name + "' (kind " + part.kind + ", path " + part.path + ")");
}

Options ReadOptions(const configs::RewardPartConfig& part) {
  Options options;
  for (const std::string& arg : part.args) {
    const std::string key = arg.substr(0, arg.find('='));
    const std::string value = key.size() < arg.size() ? arg.substr(key.size() + 1) : "";
    if (key == "dtype" && (value == "float32" || value == "bfloat16")) {
      options.dtype = value;
    } else if (key == "batch_tokens") {
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), options.batch_tokens);
      if (error != std::errc() || end != value.data() + value.size() || options.batch_tokens < 1) {
        Refuse(part, "args has '" + arg + "': batch_tokens is a number of at least 1");
      }
    } else {
      Refuse(part, "args has '" + arg + "'; this kind takes dtype=bfloat16, dtype=float32 and batch_tokens=N");
    }
  }
  return options;
}

DType DtypeOf(const configs::RewardPartConfig& part, const Options& options) {
  std::string name = options.dtype;
  if (name.empty()) {
    constexpr size_t kMaxBytes = size_t{16} << 20;
    const auto config = nlohmann::json::parse(RealFileSystem().ReadFile(part.path + "/config.json", kMaxBytes), nullptr,
                                              /*allow_exceptions=*/false);
    for (const char* key : {"torch_dtype", "dtype"}) {
      if (config.is_object() && config.contains(key) && config[key].is_string()) name = config[key].get<std::string>();
    }
  }
  return name == "float32" ? DType::kFloat32 : DType::kBFloat16;
}

// The same bytes under every id, or an error that names the first difference.
void CheckTokenizer(const configs::RewardPartConfig& part, const policy_model::Tokenizer& policy) {
  if (!RealFileSystem().Exists(part.path + "/tokenizer.json")) {
    Refuse(part, "has no tokenizer.json: without it nothing says that its tokens are the policy's");
  }
  const auto ours = policy_model::Tokenizer::Load(part.path);
  const int32_t common = std::min(ours->size(), policy.size());
  int32_t different = 0;
  while (different < common && ours->TokenBytes(different) == policy.TokenBytes(different)) ++different;
  if (different == common && ours->size() == policy.size()) return;
  Refuse(part, "its tokenizer is not the policy's: they differ from token " + std::to_string(different) +
                   " on. A reward model scores the policy's tokens: train it from a model of the policy's family");
}

policy_model::ModelShape CheckedShape(const configs::RewardPartConfig& part, const policy_model::Tokenizer& policy) {
  if (part.path.empty()) Refuse(part, "needs path: the folder of a reward model");
  if (part.workers != 1) Refuse(part, "workers has to be 1: one copy of the model scores one group at a time");
  if (!RealFileSystem().Exists(part.path + "/config.json")) {
    Refuse(part, "no model here: config.json is missing", ErrorCode::kNotFound);
  }
  policy_model::ModelShape shape = policy_model::ReadModelConfig(part.path);
  if (!shape.scalar_head) {
    Refuse(part, "has no scalar head (config.json names no ...ForSequenceClassification): it is no reward model");
  }
  CheckTokenizer(part, policy);
  return shape;
}

class RewardModel : public RewardFunction {
 public:
  RewardModel(const configs::RewardPartConfig& part, const Options& options, const policy_model::ModelShape& shape)
      : name_(part.name), options_(options), weights_(shape, Device::kCpu, DtypeOf(part, options)),
        transformer_(weights_.shape(), Device::kCpu, weights_.flat().dtype()) {
    weights_.Load(part.path);
    digest_ = "reward_model:" + weights_.ComputeDigest();
  }

  const std::string& name() const override { return name_; }
  const std::string& digest() const override { return digest_; }

  std::vector<PartScore> Score(const TrajectoryGroup& group, Deadline deadline) override {
    std::vector<PartScore> out(group.trajectories.size());
    std::vector<size_t> readable;  // index into the group
    std::vector<int32_t> lengths;
    for (size_t i = 0; i < out.size(); ++i) {
      const std::string problem = WhyNot(group.trajectories[i].tokens);
      if (!problem.empty()) {
        out[i] = PartScore::Failed(Failure::kReported, problem);
        continue;
      }
      readable.push_back(i);
      lengths.push_back(static_cast<int32_t>(group.trajectories[i].tokens.size()));
    }
    std::lock_guard lock(mu_);
    size_t begin = 0;
    for (const int32_t end : policy_model::SplitByTokens(lengths, options_.batch_tokens)) {
      const size_t stop = static_cast<size_t>(end);
      if (std::chrono::steady_clock::now() >= deadline) {
        for (; begin < readable.size(); ++begin) {
          out[readable[begin]] = PartScore::Failed(Failure::kTimeout, "the deadline passed before its forward pass");
        }
        break;
      }
      batch_.Clear();
      for (size_t k = begin; k < stop; ++k) {
        const int32_t last = lengths[k] - 1;
        batch_.AppendRows(group.trajectories[readable[k]].tokens, std::span(&last, 1));
      }
      values_.resize(stop - begin);
      transformer_.ForwardValues(weights_, batch_, /*keep=*/false, values_);
      for (size_t k = begin; k < stop; ++k) {
        const float value = values_[k - begin];
        out[readable[k]] = std::isfinite(value) ? PartScore::Of(value)
                                                : PartScore::Failed(Failure::kNotFinite, "the model's score is not finite");
      }
      begin = stop;
    }
    return out;
  }

 private:
  // Empty: the model can read them.
  std::string WhyNot(const std::vector<int32_t>& tokens) const {
    const auto& shape = weights_.shape();
    if (tokens.empty()) return "the trajectory has no tokens: a reward model scores tokens, not text";
    if (static_cast<int64_t>(tokens.size()) > shape.max_positions) {
      return "the sequence has " + std::to_string(tokens.size()) + " tokens, the reward model reads " +
             std::to_string(shape.max_positions);
    }
    for (const int32_t token : tokens) {
      if (token < 0 || token >= shape.vocab) return "token " + std::to_string(token) + " is outside the model's vocabulary";
    }
    return "";
  }

  const std::string name_;
  const Options options_;
  std::string digest_;
  policy_model::Weights weights_;
  std::mutex mu_;
  policy_model::Transformer transformer_;  // guarded by mu_, as are the next two
  policy_model::PackedBatch batch_;
  std::vector<float> values_;
};

}  // namespace

std::unique_ptr<RewardFunction> MakeRewardModel(const configs::RewardPartConfig& part,
                                                const policy_model::Tokenizer& policy) {
  const Options options = ReadOptions(part);
  return std::make_unique<RewardModel>(part, options, CheckedShape(part, policy));
}

HostOptions WithModelParts(const policy_model::Tokenizer& policy, HostOptions options) {
  options.model_part = [&policy](const configs::RewardPartConfig& part) { return MakeRewardModel(part, policy); };
  return options;
}

}  // namespace plumb::reward
