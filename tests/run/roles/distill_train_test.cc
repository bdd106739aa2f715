// plumb train with [distill]: the toy course against its bars, one process and several, a resume, a
// teacher beside demonstrations, and what the plan says of it.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::SourcePath;
using plumb::testing::TempFolder;
using testing::Has;
using testing::Lines;
using testing::Read;
using testing::RunPlumb;

// A teacher of the toys' vocabulary that has learned something, in RUN/model.
std::string Teacher(const TempFolder& temp, const std::string& name = "teacher", int steps = 10) {
  const auto run =
      RunPlumb({"train", SourcePath("configs/toy_distill_teacher.toml"), "--out", temp / name,
                "--quiet", "--steps", std::to_string(steps), "--set", "eval.bar=0"});
  EXPECT_EQ(run.code, 0) << run.err;
  return temp / (name + "/model");
}

std::vector<std::string> Line(const std::string& out, const std::string& teachers, int64_t steps,
                              const std::vector<std::string>& sets = {}) {
  std::vector<std::string> line = {"train",   SourcePath("configs/toy_distill_student.toml"),
                                   "--out",   out,
                                   "--steps", std::to_string(steps),
                                   "--set",   "distill.teachers=" + teachers,
                                   "--set",   "eval.bar=0",
                                   "--set",   "run.checkpoint_every=2"};
  for (const std::string& set : sets) line.insert(line.end(), {"--set", set});
  return line;
}

nlohmann::json Summary(const std::string& run) {
  return nlohmann::json::parse(Read(run + "/summary.json"));
}

TEST(DistillTrainTest, TheToyStudentLearnsFromItsTeacherAlone) {
  const TempFolder temp;
  const auto run =
      RunPlumb({"train", SourcePath("configs/toy_distill.toml"), "--out", temp / "run", "--quiet"});
  ASSERT_EQ(run.code, 0) << run.err << run.out;  // 7: below a bar
  const auto student = Summary(temp / "run/2-student");
  EXPECT_LE(student["eval"]["before"]["accuracy"].get<double>(), 0.5) << "nothing to learn";
  EXPECT_GE(student["eval"]["after"]["accuracy"].get<double>(), 0.9);
  const auto lines = Lines(temp / "run/2-student/metrics.jsonl");
  EXPECT_LT(lines.back()["distill/kl"].get<double>(), 0.3 * lines[0]["distill/kl"].get<double>());
  for (const char* name : {"distill/teacher_logprob", "distill/agreement", "distill/confidence"})
    EXPECT_TRUE(lines[0].contains(name)) << name;
  const std::string recipe = Read(temp / "run/2-student/config.toml");
  EXPECT_TRUE(Has(recipe, "1-teacher/model")) << recipe;
  EXPECT_TRUE(Has(recipe, "hidden = 32")) << "a model of its own";
}

TEST(DistillTrainTest, EveryDistanceInOneProcessAndInSeveral) {
  const TempFolder temp;
  const std::string teachers = "[\"" + Teacher(temp) + "\"]";
  for (const std::string distance : {"reverse_k1", "reverse_k3", "forward_top_k", "jsd"}) {
    const auto run = RunPlumb(Line(temp / distance, teachers, 4, {"distill.distance=" + distance}));
    ASSERT_EQ(run.code, 0) << distance << run.err;
    EXPECT_TRUE(Lines(temp / (distance + "/metrics.jsonl"))[3].contains("distill/kl"));
  }
  std::string command = "timeout 120 " + plumb::testing::BinaryPath("plumb");
  for (const std::string& word : Line(temp / "roles", teachers, 4, {"run.roles=processes"}))
    command += " '" + word + "'";
  ASSERT_EQ(std::system((command + " >" + (temp / "roles.out") + " 2>&1").c_str()), 0)
      << Read(temp / "roles.out");
  EXPECT_EQ(Summary(temp / "jsd")["weights_sha256"], Summary(temp / "roles")["weights_sha256"]);
}

TEST(DistillTrainTest, AResumeGoesOnBitForBit) {
  const TempFolder temp;
  const std::string folder = Teacher(temp);
  // With a policy that teaches itself, too, and answers that are left out by chance.
  for (const std::string& teachers : {"[\"" + folder + "\"]", std::string("[\"self\"]")}) {
    const std::vector<std::string> sets = {"distill.confidence=0.9", "distill.unsure_share=0.5",
                                           "distill.only=false", "checkpoint.optimizer=always"};
    const std::string name = teachers == "[\"self\"]" ? "self" : "model";
    ASSERT_EQ(RunPlumb(Line(temp / (name + "_a"), teachers, 6, sets)).code, 0);
    ASSERT_EQ(RunPlumb(Line(temp / (name + "_b"), teachers, 4, sets)).code, 0);
    auto rest = Line(temp / (name + "_b"), teachers, 6, sets);
    rest.push_back("--resume");
    const auto resumed = RunPlumb(rest);
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    testing::ExpectSameRun(temp / (name + "_a"), temp / (name + "_b"));
  }
}

TEST(DistillTrainTest, DemonstrationsWithATeacherInThreePhases) {
  const TempFolder temp;
  const std::string folder = Teacher(temp);
  const auto line = [&](const std::string& name, int64_t steps) {
    std::vector<std::string> out = {"train",   SourcePath("configs/toy_sft.toml"),
                                    "--out",   temp / name,
                                    "--steps", std::to_string(steps)};
    for (const std::string& set :
         {std::string("run.checkpoint_every=2"), "distill.teachers=[\"" + folder + "\"]",
          std::string("distill.distance=jsd"), std::string("distill.feature_steps=3"),
          std::string("distill.boundary_coef=0.1"), std::string("distill.perturb=0.01"),
          std::string("model.hidden=32"), std::string("optimizer.lr_schedule=constant"),
          std::string("optimizer.warmup_fraction=0"), std::string("checkpoint.optimizer=always")})
      out.insert(out.end(), {"--set", set});
    return out;
  };
  ASSERT_EQ(RunPlumb(line("a", 6)).code, 0);
  const auto lines = Lines(temp / "a/metrics.jsonl");
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_TRUE(lines[2].contains("distill/features") && !lines[2].contains("distill/kl"));
  EXPECT_TRUE(lines[3].contains("distill/kl") && lines[3].contains("distill/boundary") &&
              lines[3].contains("distill/perturbed"));
  ASSERT_EQ(RunPlumb(line("b", 4)).code, 0);
  auto rest = line("b", 6);
  rest.push_back("--resume");
  ASSERT_EQ(RunPlumb(rest).code, 0);
  EXPECT_EQ(Summary(temp / "a")["weights_sha256"], Summary(temp / "b")["weights_sha256"]);
}

// Of four batches three are the data's; a resume goes on with the rows that would have come, also
// in several processes, and at shares that are no whole number of batches.
TEST(DistillTrainTest, AShareOfTheBatchesHasTheDatasAnswers) {
  const TempFolder temp;
  const std::string teachers = "[\"" + Teacher(temp) + "\"]";
  const auto line = [&](const std::string& name, int64_t steps, const std::string& share) {
    return Line(temp / name, teachers, steps,
                {"distill.distance=jsd", "distill.student_share=" + share, "sft.batch=8",
                 "optimizer.learning_rate=1e-3", "checkpoint.optimizer=always"});
  };
  const auto batches = [&](const std::string& name) {
    std::vector<double> out;
    for (const auto& step : Lines(temp / (name + "/metrics.jsonl"))) {
      out.push_back(step.at("distill/data_batches"));
      EXPECT_EQ(step.contains("distill/data_kl"), out.back() > 0);
      EXPECT_EQ(step.contains("sft/loss"), out.back() > 0);
      EXPECT_TRUE(step.contains("distill/kl"));
    }
    return out;
  };
  const auto ran = RunPlumb(line("a", 6, "0.25"));
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(batches("a"), std::vector<double>(6, 3));
  EXPECT_TRUE(Has(ran.out + ran.err, "the data's answers: ")) << ran.out;
  EXPECT_LT(Lines(temp / "a/metrics.jsonl")[5]["distill/data_kl"],
            Lines(temp / "a/metrics.jsonl")[0]["distill/data_kl"]);
  ASSERT_EQ(RunPlumb(line("b", 4, "0.25")).code, 0);
  auto rest = line("b", 6, "0.25");
  rest.push_back("--resume");
  ASSERT_EQ(RunPlumb(rest).code, 0);
  testing::ExpectSameRun(temp / "a", temp / "b");
  ASSERT_EQ(RunPlumb(line("c", 6, "0.8")).code, 0);
  EXPECT_EQ(batches("c"), (std::vector<double>{0, 0, 0, 1, 0, 0}));
  EXPECT_NE(Summary(temp / "a")["weights_sha256"], Summary(temp / "c")["weights_sha256"]);
}

TEST(DistillTrainTest, PpoHasATeacherToo) {
  const TempFolder temp;
  const auto run =
      RunPlumb(Line(temp / "run", "[\"" + Teacher(temp) + "\"]", 2, {"algorithm.name=ppo"}));
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_TRUE(Lines(temp / "run/metrics.jsonl")[1].contains("distill/kl"));
}

TEST(DistillTrainTest, ThePlanAndTheErrorsNameTheTeacher) {
  const TempFolder temp;
  const std::string folder = Teacher(temp, "teacher", 1);
  auto plan = Line(temp / "run", "[\"" + folder + "\"]", 2);
  plan.erase(plan.begin() + 2, plan.begin() + 6);  // --out and --steps
  plan[0] = "plan";
  const auto planned = RunPlumb(plan);
  EXPECT_EQ(planned.code, 0) << planned.err;
  EXPECT_TRUE(Has(planned.out, "teacher")) << planned.out;
  const auto missing = RunPlumb(Line(temp / "x", "[\"" + (temp / "nowhere") + "\"]", 2));
  EXPECT_EQ(missing.code, 3) << missing.err;
  EXPECT_TRUE(Has(missing.err, "distill.teachers")) << missing.err;
  const auto other =
      RunPlumb(Line(temp / "y", "[\"" + folder + "\"]", 2, {"model.vocabulary=bytes"}));
  EXPECT_NE(other.code, 0);
  EXPECT_TRUE(Has(other.err, "tokenizer is not the student's")) << other.err;
}

}  // namespace
}  // namespace plumb::run
