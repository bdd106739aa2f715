#include "reward/models/model_part.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "common/base/numbers/number_text.h"
#include "common/text/tokenizer/same_tokens.h"
#include "reward/part/file_digest.h"

namespace plumb::reward {

void RefusePart(const configs::RewardPartConfig& part, const std::string& message, ErrorCode code) {
  throw Error(code, message,
              "reward part '" + part.name + "' (kind " + part.kind + ", path " + part.path + ")");
}

ModelPartOptions ReadModelPartOptions(const configs::RewardPartConfig& part, bool perplexity) {
  ModelPartOptions options;
  for (const std::string& arg : part.args) {
    const std::string key = arg.substr(0, arg.find('='));
    const std::string value = key.size() < arg.size() ? arg.substr(key.size() + 1) : "";
    if (key == "dtype" && (value == "float32" || value == "bfloat16")) {
      options.dtype = value;
    } else if (key == "device" && ParseDevice(value)) {
      options.device = *ParseDevice(value);
    } else if (key == "batch_tokens") {
      options.batch_tokens = ParseNumber<int64_t>(value).value_or(0);
      if (options.batch_tokens < 1) {
        RefusePart(part, "args has '" + arg + "': batch_tokens is a number of at least 1");
      }
    } else if (perplexity && (key == "low" || key == "high")) {
      double& bound = key == "low" ? options.low : options.high;
      bound = ParseNumber<double>(value).value_or(std::nan(""));
      if (!std::isfinite(bound)) {
        RefusePart(part,
                   "args has '" + arg + "': " + key + " is a perplexity, a number of at least 1");
      }
    } else {
      RefusePart(part, "args has '" + arg +
                           "'; this kind takes dtype=bfloat16, dtype=float32, device=cpu, "
                           "device=cuda, device=cuda:N, batch_tokens=N" +
                           std::string(perplexity ? ", low=P and high=P" : ""));
    }
  }
  if (options.low < 1 || options.high <= options.low) {
    RefusePart(part, "needs 1 <= low < high: the perplexities that are worth 1 and 0");
  }
  return options;
}

policy_model::ModelShape ReadModelPart(const configs::RewardPartConfig& part,
                                       const std::string& what) {
  if (part.path.empty()) RefusePart(part, "needs path: the folder of " + what);
  if (part.workers != 1)
    RefusePart(part, "workers has to be 1: one copy of the model scores one group at a time");
  if (!RealFileSystem().Exists(part.path + "/config.json")) {
    RefusePart(part, "no model here: config.json is missing", ErrorCode::kNotFound);
  }
  return policy_model::ReadModelConfig(part.path);
}

DType DtypeOf(const configs::RewardPartConfig& part, const std::string& dtype) {
  std::string name = dtype;
  if (name.empty()) {
    constexpr size_t kMaxBytes = size_t{16} << 20;
    const auto config = nlohmann::json::parse(
        RealFileSystem().ReadFile(part.path + "/config.json", kMaxBytes), nullptr,
        /*allow_exceptions=*/false);
    for (const char* key : {"torch_dtype", "dtype"}) {
      if (config.is_object() && config.contains(key) && config[key].is_string())
        name = config[key].get<std::string>();
    }
  }
  return name == "float32" ? DType::kFloat32 : DType::kBFloat16;
}

std::string VocabularyDigest(const Tokenizer& tokenizer) {
  std::string all;
  for (int32_t id = 0; id < tokenizer.size(); ++id) {
    const std::string_view bytes = tokenizer.TokenBytes(id);
    all += std::to_string(bytes.size()) + ":";
    all += bytes;
  }
  return "sha256:" + TextSha256(all);
}

void CheckTokenizer(const configs::RewardPartConfig& part, const Tokenizer& policy) {
  if (!RealFileSystem().Exists(part.path + "/tokenizer.json")) {
    RefusePart(part,
               "has no tokenizer.json: without it nothing says that its tokens are the policy's");
  }
  const auto different = FirstDifference(*Tokenizer::Load(part.path), policy);
  if (!different) return;
  RefusePart(part, "its tokenizer is not the policy's: they differ from token " +
                       std::to_string(*different) +
                       " on. A model scores the policy's tokens: take one of the policy's family");
}

Problem WhyUnreadable(const std::vector<int32_t>& tokens, const policy_model::ModelShape& shape) {
  if (tokens.empty()) return "the trajectory has no tokens: a model scores tokens, not text";
  if (static_cast<int64_t>(tokens.size()) > shape.max_positions) {
    return "the sequence has " + std::to_string(tokens.size()) + " tokens, the model reads " +
           std::to_string(shape.max_positions);
  }
  for (const int32_t token : tokens) {
    if (token < 0 || token >= shape.vocab)
      return "token " + std::to_string(token) + " is outside the model's vocabulary";
  }
  return std::nullopt;
}

ModelPart::ModelPart(const configs::RewardPartConfig& part, const ModelPartOptions& options,
                     const policy_model::ModelShape& shape)
    : options_(options),
      stream_(options.device),
      weights_(shape, stream_, DtypeOf(part, options.dtype)),
      transformer_(weights_.shape(), stream_, weights_.flat().dtype()),
      name_(part.name) {
  weights_.Load(part.path);
  digest_ = weights_.ComputeDigest();
}

Problem ModelPart::Unreadable(const Trajectory& trajectory) const {
  return WhyUnreadable(trajectory.tokens, weights_.shape());
}

std::vector<PartScore> ModelPart::Score(const TrajectoryGroup& group, Deadline deadline) {
  std::vector<PartScore> out(group.trajectories.size());
  std::vector<const Trajectory*> readable;
  std::vector<PartScore*> scores;  // of each that can be read
  for (size_t i = 0; i < out.size(); ++i) {
    if (const Problem problem = Unreadable(group.trajectories[i])) {
      out[i] = PartScore::Failed(Failure::kReported, *problem);
      continue;
    }
    readable.push_back(&group.trajectories[i]);
    scores.push_back(&out[i]);
  }
  MutexLock lock(mu_);
  plan_.Clear();
  // From the first token on, so that nothing is shared: an answer scores the same served alone
  // and among its group.
  for (const Trajectory* answer : readable) plan_.Add(answer->tokens, 0);
  size_t begin = 0;
  for (const int32_t end : plan_.Split(options_.batch_tokens)) {
    if (std::chrono::steady_clock::now() >= deadline) {
      for (; begin < readable.size(); ++begin) {
        *scores[begin] =
            PartScore::Failed(Failure::kTimeout, "the deadline passed before its forward pass");
      }
      break;
    }
    const size_t count = static_cast<size_t>(end) - begin;
    batch_.Clear();
    Pass(std::span(readable).subspan(begin, count), std::span(scores).subspan(begin, count));
    begin += count;
  }
  return out;
}

}  // namespace plumb::reward
