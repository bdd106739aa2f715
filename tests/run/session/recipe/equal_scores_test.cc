// run/session/recipe/equal_scores.h: a part that says the same of every answer is named, with the
// form that its function was given.
#include "run/session/recipe/equal_scores.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

TrajectoryGroup Scored(const std::vector<double>& values) {
  TrajectoryGroup group;
  for (const double value : values) {
    Trajectory t;
    t.rewards = {{.name = "mine", .value = value}, {.name = "other", .value = 2 * value}};
    group.trajectories.push_back(std::move(t));
  }
  return group;
}

configs::Config WithPart(std::vector<std::string> args, const std::string& path = "r.py") {
  configs::Config config;
  configs::RewardPartConfig part;
  part.name = "mine";
  part.kind = "python";
  part.path = path;
  part.args = std::move(args);
  config.reward.parts = {part};
  return config;
}

class EqualScoresTest : public ::testing::Test {
 protected:
  // What is said of a file with this source.
  std::string Line(const std::string& source, std::vector<std::string> args, bool messages,
                   double value = 0) {
    const std::string path = temp_ / "r.py";
    RealFileSystem().WriteFileAtomic(path, source);
    const std::vector<TrajectoryGroup> groups = {Scored({value}), Scored({value, value})};
    const auto lines = PartsWithEqualScores(WithPart(std::move(args), path), groups, messages);
    return lines.size() == 1 ? lines.front() : "";
  }

  const plumb::testing::TempFolder temp_;
};

constexpr char kTrl[] = "def mine(prompts, completions, **columns):\n  return [0] * 3\n";
constexpr char kVerl[] =
    "def helper(completions):\n  pass\n"
    "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n  return 0\n";

TEST_F(EqualScoresTest, AreSaidWithTheFormThatWasGiven) {
  const std::string lists = Line(kTrl, {}, /*messages=*/true);
  EXPECT_TRUE(lists.starts_with("reward part 'mine' gave 0.000 to all 3 answers")) << lists;
  EXPECT_NE(lists.find("a list of one message"), std::string::npos) << lists;
  EXPECT_NE(lists.find("args = [\"completions=text\"]"), std::string::npos) << lists;
  EXPECT_NE(Line(kTrl, {"completions=messages"}, false).find("a list"), std::string::npos);
}

TEST_F(EqualScoresTest, SayNothingOfAFormThatWasNotGiven) {
  const std::string plain =
      "reward part 'mine' gave 0.000 to all 3 answers, from which nothing can be learned";
  EXPECT_EQ(Line(kTrl, {}, false), plain);
  EXPECT_EQ(Line(kTrl, {"completions=text"}, true), plain);
  EXPECT_EQ(Line(kTrl, {"style=verl"}, true), plain) << "it gets texts";
  EXPECT_EQ(Line(kVerl, {}, true), plain) << "found from the file";
  EXPECT_EQ(Line(kVerl, {"function=compute_score"}, true), plain);
  EXPECT_NE(Line(kVerl, {"function=helper"}, true), plain);
}

TEST_F(EqualScoresTest, OfGoodOrRightAnswersAreSaidMoreSoftly) {
  const std::string good = Line(kTrl, {}, true, 1);
  EXPECT_NE(good.find("if they are not equally good: a function"), std::string::npos) << good;
  const configs::RewardPartConfig part = WithPart({}).reward.parts[0];
  EXPECT_EQ(EqualScores(part, 1, 2, /*messages=*/true, /*right=*/true),
            "reward part 'mine' gave 1.000 to all 2 answers, and all of them are right: a wrong "
            "one among them shows whether it is told");
  EXPECT_NE(EqualScores(part, 0, 2, true, true).find("nothing can be learned"), std::string::npos);
}

TEST_F(EqualScoresTest, AreNotThoseThatDifferNorOneAlone) {
  for (const std::vector<double>& values : {std::vector<double>{0.5, 0.25}, {0.5}, {}}) {
    const std::vector<TrajectoryGroup> groups = {Scored(values)};
    EXPECT_TRUE(PartsWithEqualScores(WithPart({}), groups, false).empty());
  }
  configs::Config unweighted = WithPart({});
  unweighted.reward.parts[0].weight = 0;  // it is only looked at
  const std::vector<TrajectoryGroup> groups = {Scored({1, 1})};
  EXPECT_TRUE(PartsWithEqualScores(unweighted, groups, false).empty());
}

}  // namespace
}  // namespace plumb::run
