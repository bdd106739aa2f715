#include "learner/distill/teacher.h"

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "common/text/tokenizer/same_tokens.h"
#include "kernels/device/device_memory.h"
#include "kernels/head/picked_logprob.h"
#include "learner/distill/teacher_folder.h"
#include "policy_model/families/model_config.h"
#include "policy_model/row_readout.h"

namespace plumb::learner {
namespace {

using kernels::Launch;
using policy_model::FlatBuffer;
using policy_model::HeadRows;
using policy_model::ModelShape;
using policy_model::Weights;

constexpr uint64_t kMapStream = 0xd157;

// A map from the teacher's width to the student's, in the teacher's type; none where they are one.
FlatBuffer MapTo(int64_t to, const Weights& teacher, uint64_t seed) {
  const int64_t from = teacher.shape().hidden;
  if (to == from) return {};
  std::vector<float> values(static_cast<size_t>(to * from));
  RandomStream random(seed, kMapStream << 32);
  for (float& value : values) value = random.NextNormal() / std::sqrt(static_cast<float>(from));
  FlatBuffer map(teacher.stream(), teacher.dtype(), to * from);
  std::vector<std::byte> bytes(map.bytes());
  policy_model::ConvertFloat(values, map.dtype(), bytes.data());
  map.CopyFromHost(bytes);
  return map;
}

// Reads a teacher's rows out of its passes: ids, log-probs, hidden states.
class Readout : public RowMeasure {
 public:
  Readout(const Weights& weights, const TeacherQuestion& question, int64_t width, uint64_t seed)
      : stream_(weights.stream()),
        question_(question),
        picks_(question.picks),
        width_(question.hidden ? width : 0),
        map_(question.hidden ? MapTo(width, weights, seed) : FlatBuffer()) {}

  size_t width() const override { return static_cast<size_t>(2 * picks_ + width_); }

  void Begin(std::span<const ScoredToken> rows) override {
    const auto n = static_cast<int64_t>(rows.size());
    ids_.resize(rows.size() * static_cast<size_t>(picks_));
    logprobs_.resize(ids_.size());
    hidden_.resize(rows.size() * static_cast<size_t>(width_));
    if (device_ids_.elements() < n * picks_) {
      device_ids_ = FlatBuffer(stream_, DType::kInt32, n * picks_);
      device_logprobs_ = FlatBuffer(stream_, DType::kFloat32, n * picks_);
    }
    if (device_rows_.elements() < n) {
      device_rows_ = FlatBuffer(stream_, DType::kFloat32, n);
      device_best_ = FlatBuffer(stream_, DType::kInt32, n);
    }
    if (device_hidden_.elements() < n * width_)
      device_hidden_ = FlatBuffer(stream_, DType::kFloat32, n * width_);
  }

  void Forward(const Launch& launch, const HeadRows& of) override {
    auto* ids = static_cast<int32_t*>(device_ids_.data());
    policy_model::LikeliestTokens(launch, of.logits, of.rows, of.vocab, picks_, ids);
    kernels::Call(launch,
                  kernels::PickedLogprob{.logits = of.logits,
                                         .ids = ids,
                                         .rows = of.rows,
                                         .vocab = of.vocab,
                                         .picks = picks_,
                                         .temperature = question_.pick_temperature,
                                         .logprob = device_logprobs_.f32(),
                                         .lse = device_rows_.f32(),
                                         .best = static_cast<int32_t*>(device_best_.data())});
    const auto at = static_cast<size_t>(of.first * picks_),
               bytes = static_cast<size_t>(of.rows * picks_) * sizeof(float);
    kernels::CopyAndWait(launch.stream, ids_.data() + at, ids, bytes);
    kernels::CopyAndWait(launch.stream, logprobs_.data() + at, device_logprobs_.f32(), bytes);
    if (width_ > 0) Hidden(launch, of);
  }

  void Take(std::span<float> out) override {
    const auto picks = static_cast<size_t>(picks_), width = static_cast<size_t>(width_);
    const size_t rows = ids_.size() / picks;
    for (size_t r = 0; r < rows; ++r) {
      float* to = out.data() + r * this->width();
      for (size_t k = 0; k < picks; ++k) to[k] = static_cast<float>(ids_[r * picks + k]);
      std::copy_n(logprobs_.data() + r * picks, picks, to + picks);
      std::copy_n(hidden_.data() + r * width, width, to + 2 * picks);
    }
  }

  void Weigh(std::span<const float>) override { PLUMB_CHECK(false, "a teacher has no backward"); }

 private:
  void Hidden(const Launch& launch, const HeadRows& of) {
    const auto at = static_cast<size_t>(of.first * width_),
               n = static_cast<size_t>(of.rows * width_);
    if (map_.elements() > 0) {
      policy_model::MapHidden(launch, of.hidden, map_.data(), of.rows, of.width, width_,
                              device_hidden_.f32());
      kernels::CopyAndWait(launch.stream, hidden_.data() + at, device_hidden_.f32(),
                           n * sizeof(float));
      return;
    }
    bytes_.resize(n * ElementSize(launch.dtype));
    kernels::CopyAndWait(launch.stream, bytes_.data(), of.hidden, bytes_.size());
    policy_model::ConvertToFloat(bytes_.data(), launch.dtype, std::span(hidden_).subspan(at, n));
  }

  const Stream stream_;
  const TeacherQuestion question_;
  const int64_t picks_, width_;
  const FlatBuffer map_;
  FlatBuffer device_ids_, device_logprobs_, device_rows_, device_best_, device_hidden_;
  std::vector<int32_t> ids_;
  std::vector<float> logprobs_, hidden_;
  std::vector<std::byte> bytes_;
};

// The same token numbers have to mean the same text to both.
std::unique_ptr<Tokenizer> SameTokenizer(const std::string& folder,
                                         const configs::ModelConfig& model) {
  if (!RealFileSystem().Exists(folder + "/tokenizer.json")) {
    throw Error(ErrorCode::kInvalidArgument,
                "the teacher has no tokenizer.json: without it nothing says that its tokens are "
                "the student's",
                folder);
  }
  auto theirs = Tokenizer::Load(folder);
  CheckTokensOf(*theirs, folder, model, "the teacher's tokenizer is not the student's",
                "a teacher scores the student's tokens, so take one of its family");
  return theirs;
}

}  // namespace

std::unique_ptr<Tokenizer> PolicyTokenizer(const configs::ModelConfig& model) {
  return model.path.empty() ? Tokenizer::BuiltIn(NameOf(model.vocabulary))
                            : Tokenizer::Load(model.path);
}

void CheckTokensOf(const Tokenizer& other, const std::string& folder,
                   const configs::ModelConfig& model, const std::string& finding,
                   const std::string& advice) {
  const auto different = FirstDifference(*PolicyTokenizer(model), other);
  if (!different) return;
  const std::string policy =
      model.path.empty() ? "the built-in vocabulary " + NameOf(model.vocabulary) : model.path;
  throw Error(ErrorCode::kInvalidArgument,
              finding + " (" + policy + "): they differ from token " + std::to_string(*different) +
                  " on; " + advice,
              folder);
}

ModelShape TeacherShape(const configs::Config& config, const std::string& folder,
                        const ModelShape& policy) {
  const TeacherFolder at = TeacherFolderOf(folder);
  ModelShape shape = policy_model::ReadModelConfig(at.base, policy.max_positions);
  if (shape.scalar_head) {
    throw Error(ErrorCode::kInvalidArgument,
                "is a reward model or critic (config.json says ...ForSequenceClassification): it "
                "teaches no tokens; name a language model",
                folder);
  }
  const auto tokenizer = SameTokenizer(at.vocabulary(), config.model);
  shape.unused_tokens = tokenizer->IdsWithoutToken(shape.vocab, shape.eos_tokens);
  for (int64_t id = policy.vocab; id < shape.vocab; ++id)
    shape.unused_tokens.push_back(static_cast<int32_t>(id));
  for (const int32_t id : policy.unused_tokens) {
    if (id < shape.vocab) shape.unused_tokens.push_back(id);
  }
  std::sort(shape.unused_tokens.begin(), shape.unused_tokens.end());
  shape.unused_tokens.erase(std::unique(shape.unused_tokens.begin(), shape.unused_tokens.end()),
                            shape.unused_tokens.end());
  return shape;
}

std::vector<TeacherRows> AskModel(TrainStep& train, const Weights& weights,
                                  std::span<const SequenceView> sequences,
                                  const TeacherQuestion& question, int64_t student_width,
                                  uint64_t seed) {
  TeacherQuestion asked = question;
  asked.picks = std::min(question.picks, weights.shape().vocab);
  Readout readout(weights, asked, student_width, seed);
  const auto picks = static_cast<size_t>(asked.picks);
  const size_t row = 1 + readout.width();
  std::vector<TeacherRows> out(sequences.size());
  const auto said = train.Measure(weights, sequences, question.temperature, readout);
  for (size_t s = 0; s < said.size(); ++s) {
    for (size_t at = 0; at < said[s].size(); at += row) {
      const float* from = said[s].data() + at;
      out[s].logprob.push_back(from[0]);
      for (size_t k = 0; k < picks; ++k) out[s].ids.push_back(static_cast<int32_t>(from[1 + k]));
      out[s].logprobs.insert(out[s].logprobs.end(), from + 1 + picks, from + 1 + 2 * picks);
      out[s].hidden.insert(out[s].hidden.end(), from + 1 + 2 * picks, from + row);
    }
  }
  return out;
}

LocalTeacher::LocalTeacher(const configs::Config& config, const std::string& folder,
                           const Weights& policy, Ranks* ranks)
    : seed_(config.run.seed),
      student_width_(policy.shape().hidden),
      weights_(LoadTeacher(TeacherFolderOf(folder), config,
                           TeacherShape(config, folder, policy.shape()), policy)),
      transformer_(weights_.shape(), policy.stream(), policy.dtype()),
      train_(transformer_, config.optimizer.micro_batch_tokens, ranks) {}

std::vector<TeacherRows> LocalTeacher::Say(std::span<const SequenceView> sequences,
                                           const TeacherQuestion& question) {
  return AskModel(train_, weights_, sequences, question, student_width_, seed_);
}

std::vector<TeacherRows> SelfTeacher::Say(std::span<const SequenceView> sequences,
                                          const TeacherQuestion& question) {
  const Weights& weights = reference_.weights();
  return AskModel(reference_.train(), weights, sequences, question, weights.shape().hidden, 0);
}

}  // namespace plumb::learner
