// learner/distill/student_measure.h: the distance of a student, and its gradient through a whole
// model against finite differences, however the sequences are packed.
#include "learner/distill/student_measure.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/learner/distill/teaching_rig.h"
#include "tests/learner/rank_threads.h"

namespace plumb::learner {
namespace {

using policy_model::FlatBuffer;

struct Measured {
  double sum = 0;  // of weight * distance
  std::vector<float> distances, agreements;
};

// Weight of a token: some pattern that is not the same for all.
float WeightOf(const ScoredToken& token) {
  return 0.5f + 0.25f * static_cast<float>((token.sequence + token.token) % 3);
}

Measured RunOver(TeachingRig& rig, StudentMeasure& measure, FlatBuffer& grad) {
  Measured out;
  policy_model::Gradients gradients;
  gradients.base = &grad;
  rig.train.Accumulate(
      rig.weights, rig.views, 1.0f,
      [&](const ScoredToken& token) {
        out.sum += static_cast<double>(WeightOf(token)) * static_cast<double>(token.measured[0]);
        out.distances.push_back(token.measured[0]);
        out.agreements.push_back(token.measured[2]);
        return TrainStep::Gradient{.measured = WeightOf(token)};
      },
      gradients, nullptr, &measure);
  return out;
}

std::vector<const TeacherRows*> Pointers(const std::vector<TeacherRows>& said) {
  std::vector<const TeacherRows*> out;
  for (const TeacherRows& rows : said) out.push_back(&rows);
  return out;
}

struct Case {
  const char* name;
  Comparison how;
  bool hidden = false;
};

std::vector<Case> Cases() {
  using Kind = Comparison::Kind;
  return {{"forward", {.kind = Kind::kForwardTopK}},
          {"forward at 2", {.kind = Kind::kForwardTopK, .temperature = 2.0f}},
          {"jsd", {.kind = Kind::kJsd, .beta = 0.3, .temperature = 1.3f}},
          {"reverse", {.kind = Kind::kJsd, .beta = 1}},
          {"boundary", {.kind = Kind::kJsd, .beta = 0.5, .boundary_coef = 0.4}},
          {"features", {.kind = Kind::kFeatures}, true}};
}

TEST(StudentMeasureTest, TheGradientIsTheFiniteDifference) {
  for (const Case& c : Cases()) {
    TeachingRig rig;
    LocalTeacher teacher(rig.config, rig.Folder("t", 48, 8), rig.weights, nullptr);
    const auto said = teacher.Say(
        rig.views, {.picks = 5, .pick_temperature = c.how.temperature, .hidden = c.hidden});
    StudentMeasure measure(Device::kCpu);
    FlatBuffer grad(Device::kCpu, DType::kFloat32, rig.weights.flat().elements()),
        unused(Device::kCpu, DType::kFloat32, rig.weights.flat().elements());
    measure.Show(Pointers(said), c.how);
    const Measured at = RunOver(rig, measure, grad);
    EXPECT_GT(at.sum, 0) << c.name;
    // Along the gradient the loss rises by its square.
    const auto n = static_cast<size_t>(grad.elements());
    double square = 0;
    for (size_t i = 0; i < n; ++i)
      square += static_cast<double>(grad.f32()[i]) * static_cast<double>(grad.f32()[i]);
    ASSERT_GT(square, 0) << c.name;
    const double step = 2e-3 / std::sqrt(square);
    const auto moved = [&](double by) {
      for (size_t i = 0; i < n; ++i)
        rig.weights.flat().f32()[i] += static_cast<float>(by * static_cast<double>(grad.f32()[i]));
      measure.Show(Pointers(said), c.how);
      return RunOver(rig, measure, unused).sum;
    };
    const double up = moved(step), down = moved(-2 * step);
    EXPECT_NEAR((up - down) / (2 * step) / square, 1, 0.02) << c.name;
  }
}

TEST(StudentMeasureTest, PackingAndRanksChangeNothing) {
  for (const Case& c : Cases()) {
    std::vector<float> expected, expected_gradient;
    for (const int ranks : {1, 2}) {
      for (const int64_t budget : {8, 4096}) {
        AsRanks(ranks, [&](Ranks* of) {
          TeachingRig rig(budget, of);
          LocalTeacher teacher(rig.config, rig.Folder("t", 48, 8), rig.weights, of);
          const auto said = teacher.Say(
              rig.views, {.picks = 5, .pick_temperature = c.how.temperature, .hidden = c.hidden});
          StudentMeasure measure(Device::kCpu);
          FlatBuffer grad(Device::kCpu, DType::kFloat32, rig.weights.flat().elements());
          measure.Show(Pointers(said), c.how);
          const Measured got = RunOver(rig, measure, grad);
          if (of && !of->first()) return;
          if (expected.empty()) expected = got.distances;
          ASSERT_EQ(got.distances.size(), expected.size());
          for (size_t i = 0; i < expected.size(); ++i)
            EXPECT_NEAR(got.distances[i], expected[i], 2e-5) << c.name;
        });
      }
    }
  }
}

TEST(StudentMeasureTest, AStudentThatIsItsTeacherAgrees) {
  TeachingRig rig;
  ReferencePolicy reference(rig.weights, rig.train);
  SelfTeacher self(reference);
  const auto said = self.Say(rig.views, {.picks = 5});
  StudentMeasure measure(Device::kCpu);
  FlatBuffer grad(Device::kCpu, DType::kFloat32, rig.weights.flat().elements());
  measure.Show(Pointers(said), {.kind = Comparison::Kind::kJsd});
  const Measured got = RunOver(rig, measure, grad);
  for (size_t i = 0; i < got.distances.size(); ++i) {
    EXPECT_NEAR(got.distances[i], 0, 1e-6);
    EXPECT_EQ(got.agreements[i], 1);
  }
  for (int64_t i = 0; i < grad.elements(); ++i) ASSERT_NEAR(grad.f32()[i], 0, 1e-4);
}

TEST(StudentMeasureTest, WhatNobodySpokeOfHasNoGradient) {
  TeachingRig rig;
  LocalTeacher teacher(rig.config, rig.Folder("t", 32, 8), rig.weights, nullptr);
  auto said = teacher.Say(rig.views, {.picks = 3});
  const size_t silent = said[1].logprob.size();
  said[1] = {};
  StudentMeasure measure(Device::kCpu);
  FlatBuffer grad(Device::kCpu, DType::kFloat32, rig.weights.flat().elements());
  measure.Show(Pointers(said), {.kind = Comparison::Kind::kForwardTopK});
  const Measured some = RunOver(rig, measure, grad);
  size_t zeros = 0;
  for (const float d : some.distances) zeros += d == 0;
  EXPECT_EQ(zeros, silent);
  measure.Show(std::vector<const TeacherRows*>(said.size(), nullptr),
               {.kind = Comparison::Kind::kForwardTopK});
  FlatBuffer none(Device::kCpu, DType::kFloat32, rig.weights.flat().elements());
  EXPECT_EQ(RunOver(rig, measure, none).sum, 0);
  for (int64_t i = 0; i < none.elements(); ++i) ASSERT_EQ(none.f32()[i], 0);
}

TEST(StudentMeasureTest, AgainstTheGradientTheDistanceGrows) {
  for (const int64_t budget : {8, 4096}) {
    TeachingRig rig(budget);
    LocalTeacher teacher(rig.config, rig.Folder("t", 48, 8), rig.weights, nullptr);
    const auto said = teacher.Say(rig.views, {.picks = 19});
    StudentMeasure measure(Device::kCpu);
    FlatBuffer grad(Device::kCpu, DType::kFloat32, rig.weights.flat().elements());
    double before = 0;
    for (const double share : {0.0, 0.01, 0.05}) {
      measure.Show(Pointers(said), {.kind = Comparison::Kind::kJsd});
      measure.Remember();
      const Measured clean = RunOver(rig, measure, grad);
      measure.Perturb(share);
      const Measured moved = RunOver(rig, measure, grad);
      if (share == 0) EXPECT_EQ(moved.distances, clean.distances);
      else EXPECT_GT(moved.sum - clean.sum, before);
      before = moved.sum - clean.sum;
    }
  }
}

}  // namespace
}  // namespace plumb::learner
