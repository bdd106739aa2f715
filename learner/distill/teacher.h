// What a teacher says of token sequences, wherever it is.
//
// Purpose: distillation knows no models: it asks for log-probs of the tokens that are there, for
// the likeliest tokens instead of each, and for hidden states. A teacher in this process is a model
// of its own, the policy's reference (it teaches itself), or one behind `plumb serve`
// (remote_teacher.h). Its weights never change but for a reference that is renewed.
// Thread safety: one thread. Ownership: LocalTeacher owns its weights; SelfTeacher borrows.
// Ranks: all call; each computes its share, all get everything.
// Errors: kInvalidArgument for a model with another tokenizer, or none that answers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"
#include "learner/update/reference_policy.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

// Of one sequence with n scored tokens.
struct TeacherRows {
  std::vector<float> logprob;   // [n] of the tokens themselves
  std::vector<int32_t> ids;     // [n * picks] the likeliest first; -1: there are no more
  std::vector<float> logprobs;  // [n * picks]
  std::vector<float> hidden;    // [n * width], in the student's width; empty: not asked for

  bool there() const { return !logprob.empty(); }
  size_t picks() const { return logprob.empty() ? 0 : ids.size() / logprob.size(); }
  size_t width() const { return logprob.empty() ? 0 : hidden.size() / logprob.size(); }
};

struct TeacherQuestion {
  float temperature = 1;       // of logprob
  int64_t picks = 1;           // at most the vocabulary
  float pick_temperature = 1;  // of logprobs
  bool hidden = false;
};

class Teacher {
 public:
  virtual ~Teacher() = default;
  virtual std::vector<TeacherRows> Say(std::span<const SequenceView> sequences,
                                       const TeacherQuestion& question) = 0;
};

// The language model of a folder, in the policy's type and on its device.
class LocalTeacher : public Teacher {
 public:
  LocalTeacher(const configs::Config& config, const std::string& folder,
               const policy_model::Weights& policy, Ranks* ranks);
  std::vector<TeacherRows> Say(std::span<const SequenceView> sequences,
                               const TeacherQuestion& question) override;

 private:
  const uint64_t seed_;
  const int64_t student_width_;
  policy_model::Weights weights_;
  policy_model::Transformer transformer_;
  TrainStep train_;
};

// The policy's own start, or what algorithm.reference_sync_every has made of it.
class SelfTeacher : public Teacher {
 public:
  explicit SelfTeacher(ReferencePolicy& reference) : reference_(reference) {}
  std::vector<TeacherRows> Say(std::span<const SequenceView> sequences,
                               const TeacherQuestion& question) override;

 private:
  ReferencePolicy& reference_;
};

// The tokenizer that a recipe's policy has.
std::unique_ptr<Tokenizer> PolicyTokenizer(const configs::ModelConfig& model);

// Throws kInvalidArgument where `other`, of `folder`, does not mean by its numbers what the
// policy's means: the finding, from which token on they differ, the advice.
void CheckTokensOf(const Tokenizer& other, const std::string& folder,
                   const configs::ModelConfig& model, const std::string& finding,
                   const std::string& advice);

// What a teacher's folder says, as it would be loaded for this policy: of tokens that one of the
// two does not have nothing is said. Throws for one whose tokenizer is not the policy's.
policy_model::ModelShape TeacherShape(const configs::Config& config, const std::string& folder,
                                      const policy_model::ModelShape& policy);

// Asks `train` with these weights; what all teachers in this process do. `student_width`: hidden
// states of another width go through a fixed map, drawn by `seed`: normal numbers over
// sqrt(teacher's width), which keeps their size.
std::vector<TeacherRows> AskModel(TrainStep& train, const policy_model::Weights& weights,
                                  std::span<const SequenceView> sequences,
                                  const TeacherQuestion& question, int64_t student_width,
                                  uint64_t seed);

}  // namespace plumb::learner
