// How far the student is from what teachers said, row by row of its passes, and the gradient of it.
//
// Purpose: a guest of the student's passes (TrainStep, RowMeasure). Of each scored token it says
// [0] the distance, which may have a gradient, [1] the decision-boundary term within it and [2]
// whether both hold the same token likeliest (0 or 1). Logits get their gradient at the teacher's
// tokens and through the softmax at all others; hidden states theirs. The formulas are those of
// divergence.h, computed in double on the host.
// Perturbed: a pass whose gradient of the embeddings was remembered can be made again with each
// token's embedding moved up that gradient, by a share of its own norm (Miyato et al., "Adversarial
// Training Methods for Semi-Supervised Text Classification", 2017): what a teacher said should hold
// nearby, too.
// Thread safety: one thread. Ownership: borrows what teachers said, until the next Show.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "learner/distill/teacher.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

struct Comparison {
  // kNone: nothing but whether both agree. kFeatures: of hidden states.
  enum class Kind : uint8_t { kNone, kForwardTopK, kJsd, kFeatures };
  Kind kind = Kind::kNone;
  double beta = 0.5;
  float temperature = 1;
  double boundary_coef = 0;  // the boundary term's weight within the distance
};

class StudentMeasure : public RowMeasure {
 public:
  explicit StudentMeasure(const Stream& stream) : stream_(stream) {}

  // Of the sequences that the next call of TrainStep is given; nullptr: nobody said anything of it,
  // its rows are 0 and get no gradient.
  void Show(std::vector<const TeacherRows*> said, const Comparison& how);
  // The next Accumulate keeps the gradient of its embeddings.
  void Remember();
  // The one after that, of the same sequences, begins with embeddings moved up it.
  void Perturb(double share);

  static constexpr size_t kWidth = 3;
  size_t width() const override { return kWidth; }
  void Begin(std::span<const ScoredToken> rows) override;
  void Take(std::span<float> out) override;
  void Weigh(std::span<const float> gradient) override;

  void Embedded(const kernels::Launch& launch, int64_t tokens, int64_t width, void* x) override;
  void Forward(const kernels::Launch& launch, const policy_model::HeadRows& of) override;
  void BackwardLogits(const kernels::Launch& launch, const policy_model::HeadRows& of,
                      void* dlogits) override;
  void BackwardHidden(const kernels::Launch& launch, const policy_model::HeadRows& of,
                      void* dhidden) override;
  void EmbeddedBackward(const kernels::Launch& launch, int64_t tokens, int64_t width,
                        const void* dx) override;

 private:
  struct Row {
    const TeacherRows* said = nullptr;
    size_t token = 0;
  };
  bool OfLogits() const { return how_.kind != Comparison::Kind::kFeatures; }
  void CompareLogits(size_t first, size_t rows, int64_t vocab);
  void CompareHidden(const kernels::Launch& launch, const policy_model::HeadRows& of);
  // Picks of rows [first, first + rows), in the device's memory.
  const int32_t* Ids(const kernels::Launch& launch, size_t first, size_t rows);

  // Numbers of the model's type on the device, as floats and back.
  void Fetch(const kernels::Launch& launch, const void* from, std::span<float> to);
  void Store(const kernels::Launch& launch, std::span<const float> from, void* to);

  const Stream stream_;
  Comparison how_;
  std::vector<const TeacherRows*> said_;  // by sequence
  std::vector<Row> rows_;                 // of the pass
  size_t picks_ = 0, width_ = 0;          // of it: the most that a row has
  std::vector<int32_t> ids_, best_;       // [rows * picks], [rows]
  std::vector<float> logprobs_;           // [rows * picks], the student's
  std::vector<float> slopes_;             // [rows * picks] or [rows * width], of the distance
  std::vector<float> results_, weights_;  // [rows * kWidth], [rows]
  policy_model::FlatBuffer device_ids_, device_logprobs_, device_lse_, device_best_, device_g_;
  std::vector<std::byte> bytes_;
  std::vector<float> floats_, moved_;
  // Gradients of embeddings by pass of an Accumulate, in its order.
  bool remember_ = false;
  double perturb_ = 0;
  size_t pass_ = 0;
  std::vector<std::vector<float>> gradients_;
};

}  // namespace plumb::learner
