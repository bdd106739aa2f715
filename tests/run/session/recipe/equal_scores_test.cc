// run/session/recipe/equal_scores.h: a part that says the same of every answer is named, with the
// form that its function was given.
#include "run/session/recipe/equal_scores.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

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

configs::Config WithPart(std::vector<std::string> args) {
  configs::Config config;
  configs::RewardPartConfig part;
  part.name = "mine";
  part.kind = "python";
  part.path = "r.py";
  part.args = std::move(args);
  config.reward.parts = {part};
  return config;
}

std::string Line(std::vector<std::string> args, bool messages) {
  const std::vector<TrajectoryGroup> groups = {Scored({0.5}), Scored({0.5, 0.5})};
  const auto lines = PartsWithEqualScores(WithPart(std::move(args)), groups, messages);
  return lines.size() == 1 ? lines.front() : "";
}

TEST(EqualScoresTest, AreSaidWithTheFormThatWasGiven) {
  const std::string lists = Line({}, /*messages=*/true);
  EXPECT_TRUE(lists.starts_with("reward part 'mine' gave 0.500 to all 3 answers")) << lists;
  EXPECT_NE(lists.find("a list of one message"), std::string::npos) << lists;
  EXPECT_NE(lists.find("args = [\"completions=text\"]"), std::string::npos) << lists;
  EXPECT_NE(Line({}, false).find("each completion as text (args"), std::string::npos);
  EXPECT_NE(Line({"completions=text"}, true).find("as text"), std::string::npos);
  EXPECT_EQ(Line({"style=verl"}, true).find("TRL"), std::string::npos) << "it gets texts";
}

TEST(EqualScoresTest, AreNotThoseThatDifferNorOneAlone) {
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
