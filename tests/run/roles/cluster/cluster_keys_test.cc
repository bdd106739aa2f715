#include "run/roles/cluster/cluster_keys.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

TEST(ClusterKeysTest, AFolderHasAPairForTheHeadAndForEachKindOfRole) {
  const TempFolder temp;
  const std::string keys = temp / "keys";
  WriteClusterKeys(keys);
  const HeadDoors doors = ReadHeadDoors(keys, "tcp://0.0.0.0:7777", /*insecure=*/false);
  const CurveClient actor =
      ReadMemberKeys(keys, MemberKind::kActor, "tcp://head:7777", /*insecure=*/false);
  const CurveClient reward =
      ReadMemberKeys(keys, MemberKind::kReward, "tcp://head:7777", /*insecure=*/false);
  EXPECT_EQ(actor.server_key, doors.all.own.public_key);
  EXPECT_TRUE(AllowedKeys(doors.actors.allowed_file).Allows(actor.own.public_key));
  EXPECT_FALSE(AllowedKeys(doors.actors.allowed_file).Allows(reward.own.public_key))
      << "a reward worker is no actor";
  EXPECT_TRUE(AllowedKeys(doors.rewards.allowed_file).Allows(reward.own.public_key));
  EXPECT_FALSE(doors.all.open);
  try {
    WriteClusterKeys(keys);
    FAIL() << "keys in use were overwritten";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict) << e.what();
  }
}

TEST(ClusterKeysTest, WithoutKeysOnlyTheLoopbackOrWhatAPersonAnswersFor) {
  for (const char* here : {"tcp://127.0.0.1:7777", "tcp://[::1]:7777", "tcp://127.0.0.1:*"}) {
    EXPECT_FALSE(ReadHeadDoors("", here, false).all.open) << here;
  }
  for (const char* there : {"tcp://0.0.0.0:7777", "tcp://node1:7777", "tcp://*:7777"}) {
    try {
      ReadHeadDoors("", there, false);
      ADD_FAILURE() << there << " was opened";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUnsupported) << e.what();
    }
    EXPECT_TRUE(ReadHeadDoors("", there, true).all.open);
  }
  EXPECT_THROW(ReadMemberKeys("", MemberKind::kActor, "tcp://head:7777", false), Error);
  EXPECT_TRUE(ReadMemberKeys("", MemberKind::kActor, "tcp://head:7777", true).open);
}

TEST(ClusterKeysTest, AnAddressHasAHostAndAPortWithFourBehindIt) {
  const TcpAddress address = ReadTcpAddress("tcp://[::1]:7777", "here");
  EXPECT_EQ(address.host, "[::1]");
  EXPECT_EQ(address.At(4), "tcp://[::1]:7781");
  EXPECT_EQ(ReadTcpAddress("tcp://127.0.0.1:*", "here").At(3), "tcp://127.0.0.1:*");
  for (const char* bad : {"", "tcp://", "tcp://host", "tcp://:1", "tcp://host:0",
                          "tcp://host:65532", "tcp://host:1x", "ipc:///tmp/a", "host:1"})
    EXPECT_THROW(ReadTcpAddress(bad, "here"), Error) << bad;
}

}  // namespace
}  // namespace plumb::run
