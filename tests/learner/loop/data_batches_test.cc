#include "learner/loop/data_batches.h"

#include <gtest/gtest.h>

#include "tests/learner/distill/teaching_rig.h"

namespace plumb::learner {
namespace {

TEST(DataBatchesTest, KeepTheStudentsShareFromStepToStep) {
  for (const double share : {1.0, 0.9, 0.75, 0.5, 0.3, 0.25, 0.1}) {
    for (int64_t step = 1; step <= 200; ++step) {
      const auto of_data = static_cast<double>(DataBatches::Before(share, step)),
                 wanted = static_cast<double>(step) * (1 - share) / share;
      EXPECT_LE(of_data, wanted + 1e-6);
      EXPECT_GT(of_data, wanted - 1 - 1e-6) << share << " " << step;
    }
  }
  EXPECT_EQ(DataBatches::Before(1, 1000), 0);
  EXPECT_EQ(DataBatches::Before(0.25, 10), 30);
  EXPECT_EQ(DataBatches::Before(0.1, 10), 90);
}

// The student's own batch, of which nothing is trained here.
class Student : public Algorithm {
 public:
  std::map<std::string, double> Train(std::span<const TrajectoryGroup>, double, int64_t) override {
    return {{"perf/train_tokens", 1000}, {"perf/shared_tokens", 5}, {"optim/grad_norm", 7}};
  }
  std::string StateJson() const override { return "{\"a\":1}"; }
};

// A step's batches are updates of DistillObjective, and each has its own rows.
TEST(DataBatchesTest, TeachTheDatasAnswers) {
  TeachingRig rig;
  rig.config.distill.teachers = {rig.Folder("t", 48, 8)};
  rig.config.distill.distance = configs::Distance::kForwardTopK;
  rig.config.distill.only = true;
  rig.config.distill.student_share = 0.25;
  rig.config.sft.batch = 2;
  Optimizer optimizer(rig.weights, rig.config.optimizer);
  Distiller distiller(rig.config, rig.weights, nullptr, nullptr);
  DataBatches batches(std::make_unique<Student>(), rig.config, rig.train, rig.weights, optimizer,
                      distiller, rig.data);
  EXPECT_EQ(batches.StateJson(), "{\"a\":1}") << "a checkpoint keeps the student's";
  const std::map<std::string, double> first = batches.Train({}, 3e-3, 0);
  EXPECT_EQ(first.at("distill/data_batches"), 3);
  EXPECT_EQ(optimizer.updates(), 3);
  EXPECT_GT(first.at("perf/train_tokens"), 1000);
  EXPECT_EQ(first.at("optim/grad_norm"), 7) << "the student's batch says that";
  EXPECT_GT(first.at("sft/tokens"), 0);
  double last = first.at("distill/data_kl");
  for (int64_t step = 1; step < 12; ++step) {
    last = batches.Train({}, 3e-3, step).at("distill/data_kl");
  }
  EXPECT_LT(last, 0.7 * first.at("distill/data_kl"));
}

}  // namespace
}  // namespace plumb::learner
