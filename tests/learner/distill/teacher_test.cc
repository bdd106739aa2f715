// learner/distill/teacher.h: what a teacher says is what its model computes, and who cannot teach
// whom.
#include "learner/distill/teacher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "policy_model/families/model_config.h"
#include "tests/learner/distill/teaching_rig.h"

namespace plumb::learner {
namespace {

using policy_model::Weights;

TEST(TeacherTest, SaysWhatItsModelComputes) {
  TeachingRig rig;
  LocalTeacher teacher(rig.config, rig.Folder("t", 48, 8, /*padded=*/6), rig.weights, nullptr);
  constexpr int64_t kPicks = 4;
  const auto said = teacher.Say(
      rig.views, {.temperature = 0.8f, .picks = kPicks, .pick_temperature = 1.5f, .hidden = true});
  // The same model by itself.
  const policy_model::ModelShape shape =
      TeacherShape(rig.config, rig.temp / "t", rig.weights.shape());
  ASSERT_EQ(shape.vocab, rig.weights.shape().vocab + 6);
  EXPECT_EQ(shape.unused_tokens.size(), 6u) << "the student has no such tokens";
  Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Load(rig.temp / "t");
  policy_model::Transformer transformer(shape, Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, 4096);
  const auto logprobs = train.Score(weights, rig.views, 0.8f);
  for (size_t s = 0; s < rig.views.size(); ++s) {
    const size_t n = logprobs[s].size();
    ASSERT_EQ(said[s].logprob.size(), n);
    ASSERT_EQ(said[s].picks(), static_cast<size_t>(kPicks));
    EXPECT_EQ(said[s].width(), 32u) << "in the student's width";
    policy_model::PackedBatch batch;
    batch.Clear();
    batch.Append(rig.views[s].tokens, rig.views[s].mask);
    std::vector<float> logits(n * static_cast<size_t>(shape.vocab));
    transformer.Logits(weights, batch, logits);
    for (size_t i = 0; i < n; ++i) {
      EXPECT_NEAR(said[s].logprob[i], logprobs[s][i], 1e-5);
      const float* row = logits.data() + i * static_cast<size_t>(shape.vocab);
      double sum = 0;
      for (int64_t j = 0; j < shape.vocab; ++j) sum += std::exp(static_cast<double>(row[j]) / 1.5);
      float before = INFINITY;
      for (int64_t k = 0; k < kPicks; ++k) {
        const size_t at = i * kPicks + static_cast<size_t>(k);
        const int32_t id = said[s].ids[at];
        ASSERT_LT(id, rig.weights.shape().vocab);
        EXPECT_LE(row[id], before);
        before = row[id];
        EXPECT_NEAR(static_cast<double>(said[s].logprobs[at]),
                    static_cast<double>(row[id]) / 1.5 - std::log(sum), 1e-4);
      }
      EXPECT_EQ(said[s].ids[i * kPicks], std::max_element(row, row + shape.vocab) - row);
    }
  }
}

TEST(TeacherTest, HiddenStatesOfOneWidthAreThemselvesAndOthersKeepTheirSize) {
  TeachingRig rig;
  const TeacherQuestion question{.hidden = true};
  LocalTeacher same(rig.config, rig.Folder("same", 32, 8), rig.weights, nullptr),
      wide(rig.config, rig.Folder("wide", 64, 8), rig.weights, nullptr);
  const auto squares = [&](LocalTeacher& teacher) {
    double sum = 0, n = 0;
    for (const TeacherRows& rows : teacher.Say(rig.views, question)) {
      for (const float h : rows.hidden) sum += static_cast<double>(h) * static_cast<double>(h);
      n += static_cast<double>(rows.hidden.size());
    }
    return sum / n;
  };
  // Behind a norm of ones the mean square is 1.
  EXPECT_NEAR(squares(same), 1, 0.01);
  EXPECT_NEAR(squares(wide), 1, 0.35);
  LocalTeacher again(rig.config, rig.temp / "wide", rig.weights, nullptr);
  EXPECT_EQ(wide.Say(rig.views, question)[0].hidden, again.Say(rig.views, question)[0].hidden)
      << "the map is the same after a restart";
}

TEST(TeacherTest, APolicyThatTeachesItselfAgreesWithItself) {
  TeachingRig rig;
  ReferencePolicy reference(rig.weights, rig.train);
  SelfTeacher self(reference);
  const auto said = self.Say(rig.views, {.picks = 2});
  const auto own = rig.train.Score(rig.weights, rig.views, 1.0f);
  for (size_t s = 0; s < own.size(); ++s) {
    for (size_t i = 0; i < own[s].size(); ++i) EXPECT_NEAR(said[s].logprob[i], own[s][i], 1e-5);
  }
}

TEST(TeacherTest, AnotherTokenizerIsRefused) {
  TeachingRig rig;
  const std::string folder = rig.Folder("t", 32, 8);
  rig.config.model.vocabulary = configs::Vocabulary::kBytes;
  try {
    TeacherShape(rig.config, folder, rig.weights.shape());
    FAIL() << "a teacher of other tokens";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("tokenizer is not the student's"), std::string::npos)
        << e.what();
  }
  std::remove((folder + "/tokenizer.json").c_str());
  EXPECT_THROW(TeacherShape(rig.config, folder, rig.weights.shape()), Error);
}

}  // namespace
}  // namespace plumb::learner
