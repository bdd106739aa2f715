#include "run/roles/cluster/role_files.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash/sha256.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

class RoleFilesTest : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& text) {
    const std::string path = temp_ / name;
    RealFileSystem().CreateDirectories(std::filesystem::path(path).parent_path().string());
    RealFileSystem().WriteFileAtomic(path, text);
  }
  static std::vector<std::string> Names(const RoleFiles& files) {
    std::vector<std::string> names;
    for (const RoleFile& file : files.files) names.push_back(file.name);
    return names;
  }
  const TempFolder temp_;
};

TEST_F(RoleFilesTest, AnActorGetsTheModelsTextsAndNoWeights) {
  Write("m/config.json", "{}");
  Write("m/tokenizer.json", "{\"a\":1}");
  Write("m/model.safetensors", "weights");
  Write("m/pytorch_model.bin", "weights");
  configs::Config config;
  config.model.path = temp_ / "m";
  config.reward.parts.push_back(
      {.name = "rule", .kind = "python", .path = temp_ / "m/config.json"});
  const RoleFiles files = FilesOf(config, MemberKind::kActor);
  ASSERT_EQ(Names(files), (std::vector<std::string>{"model/config.json", "model/tokenizer.json"}));
  EXPECT_EQ(files.files[1].digest, Sha256Hex("{\"a\":1}"));
  EXPECT_EQ(files.files[1].bytes, 7u);
}

TEST_F(RoleFilesTest, ARewardWorkerGetsWhatItsPartsName) {
  Write("rule.py", "def reward(): pass\n");
  Write("score.sh", "echo\n");
  std::filesystem::permissions(temp_ / "score.sh", std::filesystem::perms::owner_all);
  Write("rm/config.json", "{}");
  Write("rm/model.safetensors", "weights");
  configs::Config config;
  config.reward.parts = {
      {.name = "rule", .kind = "python", .path = temp_ / "rule.py"},
      {.name = "program", .kind = "program", .path = "sh", .args = {"-e", temp_ / "score.sh"}},
      {.name = "model", .kind = "reward_model", .path = temp_ / "rm"}};
  const RoleFiles files = FilesOf(config, MemberKind::kReward);
  EXPECT_EQ(Names(files),
            (std::vector<std::string>{"reward/0/rule.py", "reward/1/args/score.sh",
                                      "reward/2/rm/config.json", "reward/2/rm/model.safetensors"}));

  const TempFolder there;
  for (const RoleFile& file : files.files)
    PutRoleFile(there.path(), file, RealFileSystem().ReadFile(file.path, 1 << 20));
  const configs::Config moved = PointInto(config, files.paths, there.path());
  EXPECT_EQ(moved.reward.parts[0].path, there / "reward/0/rule.py");
  EXPECT_EQ(moved.reward.parts[1].path, "sh") << "a program of the PATH is that of the machine";
  EXPECT_EQ(moved.reward.parts[1].args,
            (std::vector<std::string>{"-e", there / "reward/1/args/score.sh"}));
  EXPECT_EQ(moved.reward.parts[2].path, there / "reward/2/rm");
  EXPECT_EQ(RealFileSystem().ReadFile(moved.reward.parts[0].path, 100), "def reward(): pass\n");
  EXPECT_NE(std::filesystem::status(moved.reward.parts[1].args[1]).permissions() &
                std::filesystem::perms::owner_exec,
            std::filesystem::perms::none);
}

TEST_F(RoleFilesTest, OtherBytesThanPromisedAreRefused) {
  const RoleFile file{.name = "a", .path = {}, .bytes = 3, .digest = Sha256Hex("abc")};
  for (const char* bytes : {"abd", "ab", ""}) {
    try {
      PutRoleFile(temp_.path(), file, bytes);
      FAIL() << bytes;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCorruption) << e.what();
    }
  }
  EXPECT_FALSE(RealFileSystem().Exists(temp_ / "a"));
  PutRoleFile(temp_.path(), file, "abc");
  EXPECT_TRUE(RealFileSystem().Exists(temp_ / "a"));
}

TEST_F(RoleFilesTest, NothingLeadsOutOfTheRolesFolder) {
  for (const char* name : {"", "/etc/passwd", "../a", "a/../../b", "./a", "a/", "."})
    EXPECT_THROW(CheckRoleFileName(name), Error) << name;
  configs::Config config;
  EXPECT_THROW(PointInto(config, {{"run.out", "a"}}, temp_.path()), Error)
      << "only options that name files are pointed elsewhere";
  EXPECT_THROW(PointInto(config, {{"reward.parts.0.path", "a"}}, temp_.path()), Error);
  EXPECT_THROW(PointInto(config, {{"model.path", "../a"}}, temp_.path()), Error);
}

TEST_F(RoleFilesTest, TheDigestOfARecipeIsThatOfTheRunAndNotOfItsMachines) {
  configs::Config config;
  const std::string before = RecipeDigest(config);
  config.run.out = "elsewhere";
  config.run.threads = 7;
  config.run.listen = "tcp://127.0.0.1:1";
  EXPECT_EQ(RecipeDigest(config), before);
  config.run.seed = 2;
  EXPECT_NE(RecipeDigest(config), before);
}

// A head that goes on from another folder reads other paths, and is still the run that roles were
// started for.
TEST_F(RoleFilesTest, ARunHasOneDigestFromEveryFolder) {
  Write("home/rows.jsonl", "{}\n");
  const std::string home = temp_ / "home", run = home + "/run";
  Write("home/run/config.toml",
        "[data]\ntrain = \"rows.jsonl\"\n[[reward.parts]]\nkind = \"answer\"\n");
  Write("home/run/run.json", "{\"started_in\": \"" + home + "\", \"folder\": \"" + run + "\"}");
  const std::filesystem::path before = std::filesystem::current_path();
  std::string paths[2], digests[2];
  for (const int away : {0, 1}) {
    std::filesystem::current_path(away == 0 ? home : temp_.path());
    paths[away] = configs::LoadRecipe(run + "/config.toml").config.data.train;
    digests[away] = RecipeDigestOfRun(run + "/config.toml");
    if (away == 0) {
      EXPECT_EQ(digests[0], RecipeDigest(configs::LoadRecipe(run + "/config.toml").config));
    }
  }
  std::filesystem::current_path(before);
  EXPECT_NE(paths[0], paths[1]);
  EXPECT_EQ(digests[0], digests[1]);
}

}  // namespace
}  // namespace plumb::run
