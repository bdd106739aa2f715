#include "run/roles/cluster/roster.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::run {
namespace {

using std::chrono::milliseconds;

Member Actor(const std::string& name, uint64_t epoch) {
  return {.name = name, .kind = MemberKind::kActor, .epoch = epoch, .machine = "here"};
}

class RosterTest : public ::testing::Test {
 protected:
  Roster::Clock::time_point now_{};
  Roster roster_{milliseconds(100), [this] { return now_; }};
};

TEST_F(RosterTest, ASilentRoleIsLostAndMayComeBackAsAnotherLife) {
  EXPECT_FALSE(roster_.Join(Actor("a", 1)));
  EXPECT_FALSE(roster_.Join(Actor("b", 1)));
  now_ += milliseconds(80);
  EXPECT_TRUE(roster_.Beat("a", 1));
  now_ += milliseconds(80);
  const auto lost = roster_.Sweep();
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].name, "b");
  EXPECT_TRUE(roster_.Sweep().empty()) << "once";
  EXPECT_FALSE(roster_.Beat("b", 1)) << "it has to join again";
  EXPECT_FALSE(roster_.Join(Actor("b", 2))) << "nothing of its earlier life is left to free";
  EXPECT_TRUE(roster_.Beat("b", 2));
  EXPECT_EQ(roster_.Count(MemberKind::kActor), 2);
  EXPECT_EQ(roster_.Count(MemberKind::kReward), 0);
  EXPECT_EQ(roster_.counters().at("joined"), 3);
  EXPECT_EQ(roster_.counters().at("lost"), 1);
}

TEST_F(RosterTest, AnOlderLifeOfANameIsFenced) {
  roster_.Join(Actor("a", 5));
  EXPECT_FALSE(roster_.Join(Actor("a", 5))) << "the question came twice";
  EXPECT_TRUE(roster_.Join(Actor("a", 6))) << "what life 5 held is to be freed";
  for (const auto& say : {std::function<void()>([&] { roster_.Beat("a", 5); }),
                          std::function<void()>([&] { roster_.Leave("a", 5); }),
                          std::function<void()>([&] { roster_.Join(Actor("a", 5)); })}) {
    try {
      say();
      FAIL() << "an old life was heard";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kConflict) << e.what();
    }
  }
  EXPECT_TRUE(roster_.Leave("a", 6));
  EXPECT_THROW(roster_.Join(Actor("a", 5)), Error) << "also once the newer one has left";
  EXPECT_EQ(roster_.counters().at("fenced"), 4);
  EXPECT_EQ(roster_.counters().at("left"), 1);
}

TEST_F(RosterTest, NamesAreOfCharactersThatFilesAndLogsTake) {
  for (const char* name : {"", ".hidden", "a/b", "a b", "a\n", "ü"})
    EXPECT_THROW(roster_.Join(Actor(name, 1)), Error) << name;
  EXPECT_THROW(roster_.Join(Actor(std::string(129, 'a'), 1)), Error);
  EXPECT_TRUE(roster_.members().empty());
}

}  // namespace
}  // namespace plumb::run
