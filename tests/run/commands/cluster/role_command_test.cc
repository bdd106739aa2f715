#include <gtest/gtest.h>

#include "run/commands/cluster/cluster_commands.h"
#include "run/roles/cluster/cluster_keys.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

TEST(RoleCommand, SaysWhatARoleNeedsBeforeItLooksForAHead) {
  EXPECT_EQ(RunPlumb({"role", "actor"}).code, 2) << "no --join";
  const auto learner = RunPlumb({"role", "learner", "--join", "tcp://127.0.0.1:9"});
  EXPECT_EQ(learner.code, 2);
  const auto address = RunPlumb({"role", "actor", "--join", "127.0.0.1:9"});
  EXPECT_EQ(address.code, 2);
  const auto name =
      RunPlumb({"role", "actor", "--join", "tcp://127.0.0.1:9", "--name", "../a", "--wait", "1"});
  EXPECT_EQ(name.code, 2);
}

TEST(KeysCommand, AFolderGetsTheKeysOfACluster) {
  const plumb::testing::TempFolder temp;
  const auto made = RunPlumb({"keys", "generate", temp / "keys/"});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_TRUE(Has(made.out, "actor.key")) << made.out;
  EXPECT_FALSE(ReadHeadDoors(temp / "keys", "tcp://0.0.0.0:7777", false).all.empty());
  EXPECT_EQ(RunPlumb({"keys", "generate", temp / "keys/"}).code, 2) << "they are in use";
  EXPECT_EQ(RunPlumb({"keys", "generate", temp / "one"}).code, 0) << "a pair, as before";
  EXPECT_TRUE(RealFileSystem().Exists(temp / "one.key"));
}

}  // namespace
}  // namespace plumb::run::testing
