// configs/paths.h: from the working folder first, then from the recipe's.
#include "configs/paths.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::configs {
namespace {

using plumb::testing::TempFolder;

TEST(Paths, AreFoundBesideTheRecipe) {
  const TempFolder temp;
  RealFileSystem().WriteFileAtomic(temp / "prompts.jsonl", "{}\n");
  RealFileSystem().WriteFileAtomic(temp / "rule.py", "");
  Config config;
  config.data.train = "prompts.jsonl";
  config.data.eval = "arithmetic";
  config.reward.parts.resize(1);
  config.reward.parts[0].path = "rule.py";
  config.model.path = "no/such/model";
  FindBesideRecipe(config, temp / "r.toml");
  const auto real = std::filesystem::canonical(temp.path());
  EXPECT_EQ(config.data.train, real / "prompts.jsonl");
  EXPECT_EQ(config.reward.parts[0].path, real / "rule.py");
  EXPECT_EQ(config.data.eval, "arithmetic");
  EXPECT_EQ(config.model.path, "no/such/model") << "stays as it is where it leads nowhere";
  const auto missing = MissingFiles(config, temp / "r.toml");
  ASSERT_EQ(missing.size(), 1u);
  EXPECT_NE(missing[0].find((real / "no/such/model").string()), std::string::npos) << missing[0];
}

}  // namespace
}  // namespace plumb::configs
