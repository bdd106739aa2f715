// learner/offline/distill_objective.h: a student comes to its teacher, in each of the three ways.
#include "learner/offline/distill_objective.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "learner/offline/sft_objective.h"
#include "tests/learner/distill/teaching_rig.h"

namespace plumb::learner {
namespace {

using Metrics = std::map<std::string, double>;

struct Lesson {
  TeachingRig rig;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Distiller> distiller;
  std::unique_ptr<DistillObjective> objective;
  std::vector<std::string> datasets;
  std::vector<uint32_t> rows;

  Lesson() {
    rig.config.distill.distance = configs::Distance::kJsd;
    rig.config.distill.only = true;
    rig.config.optimizer.grad_clip = 1;
    rig.data = RandomDemonstrations(12, 5);
    datasets.assign(rig.data.size(), "");
    rows.resize(rig.data.size());
    std::iota(rows.begin(), rows.end(), 0u);
  }
  void Make() {
    rig.config.distill.teachers = {rig.Folder("t", 48, 8)};
    optimizer = std::make_unique<Optimizer>(rig.weights, rig.config.optimizer);
    distiller = std::make_unique<Distiller>(rig.config, rig.weights, nullptr, nullptr);
    objective = std::make_unique<DistillObjective>(rig.train, rig.weights, *optimizer, *distiller,
                                                   rig.data, datasets, rig.data);
  }
  Metrics Steps(int64_t from, int64_t to) {
    Metrics metrics;
    for (int64_t step = from; step < to; ++step) metrics = objective->Train(rows, 3e-3, step);
    return metrics;
  }
};

TEST(DistillObjectiveTest, TheStudentComesToItsTeacher) {
  for (const auto distance : {configs::Distance::kJsd, configs::Distance::kForwardTopK}) {
    Lesson lesson;
    lesson.rig.config.distill.distance = distance;
    lesson.Make();
    const Metrics first = lesson.Steps(0, 1), last = lesson.Steps(1, 120);
    EXPECT_LT(last.at("distill/kl"), 0.35 * first.at("distill/kl")) << NameOf(distance);
    EXPECT_GT(last.at("distill/agreement"), first.at("distill/agreement"));
    EXPECT_FALSE(last.contains("distill/boundary"));
  }
}

TEST(DistillObjectiveTest, WithoutATermItIsSupervisedFineTuning) {
  Lesson lesson;
  lesson.rig.config.distill.only = false;
  lesson.rig.config.distill.coef = 0;
  lesson.Make();
  TeachingRig other;
  Optimizer optimizer(other.weights, lesson.rig.config.optimizer);
  SftObjective sft(other.train, other.weights, optimizer, lesson.rig.data, {});
  for (int64_t step = 0; step < 3; ++step) {
    const Metrics a = lesson.objective->Train(lesson.rows, 1e-3, step),
                  b = sft.Train(lesson.rows, 1e-3, step);
    EXPECT_NEAR(a.at("sft/loss"), b.at("sft/loss"), 1e-5);
    EXPECT_NEAR(a.at("optim/grad_norm"), b.at("optim/grad_norm"), 1e-3);
    EXPECT_EQ(a.at("sft/tokens"), b.at("sft/tokens"));
  }
  EXPECT_NEAR(lesson.objective->Evaluate().loss,
              DemonstrationLoss(other.train, other.weights, lesson.rig.data), 1e-4);
}

TEST(DistillObjectiveTest, FeaturesFirstThenDistributions) {
  Lesson lesson;
  lesson.rig.config.distill.feature_steps = 60;
  lesson.Make();
  const Metrics first = lesson.Steps(0, 1), last = lesson.Steps(1, 60);
  EXPECT_LT(last.at("distill/features"), 0.7 * first.at("distill/features"));
  EXPECT_FALSE(last.contains("distill/kl"));
  const Metrics then = lesson.Steps(60, 61);
  EXPECT_TRUE(then.contains("distill/kl"));
  EXPECT_FALSE(then.contains("distill/features"));
}

TEST(DistillObjectiveTest, TheBoundaryTermPullsAtTheDecision) {
  Lesson lesson;
  lesson.rig.config.distill.boundary_coef = 1;
  lesson.Make();
  const Metrics first = lesson.Steps(0, 1), last = lesson.Steps(1, 120);
  EXPECT_LT(last.at("distill/boundary"), 0.35 * first.at("distill/boundary"));
}

TEST(DistillObjectiveTest, PerturbedEmbeddingsAreAnotherPassAndAnotherGradient) {
  Lesson plain, moved;
  moved.rig.config.distill.perturb = 0.02;
  plain.Make();
  moved.Make();
  const Metrics a = plain.Steps(0, 1), b = moved.Steps(0, 1);
  EXPECT_NEAR(a.at("distill/kl"), b.at("distill/kl"), 1e-6) << "measured on the clean pass";
  EXPECT_GT(b.at("distill/perturbed"), b.at("distill/kl"));
  EXPECT_GT(b.at("optim/grad_norm"), 1.5 * a.at("optim/grad_norm"));
  EXPECT_EQ(b.at("perf/train_tokens"), 2 * a.at("perf/train_tokens"));
  EXPECT_LT(moved.Steps(1, 120).at("distill/perturbed"), 0.5 * b.at("distill/perturbed"));
}

TEST(DistillObjectiveTest, UnsureRowsAreNotTrained) {
  Lesson lesson;
  lesson.rig.config.distill.confidence = 1;
  lesson.rig.config.distill.unsure_share = 0;
  lesson.Make();
  const Metrics metrics = lesson.Steps(0, 1);
  EXPECT_NEAR(metrics.at("distill/left_out"), 11.0 / 12, 1e-9);
  EXPECT_LT(metrics.at("sft/tokens"), 14);
}

}  // namespace
}  // namespace plumb::learner
