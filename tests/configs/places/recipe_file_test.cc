// configs/places/recipe_file.cc: a recipe from its file.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "configs/recipe_problems.h"
#include "tests/testing/temp_folder.h"

namespace plumb::configs {
namespace {

using plumb::testing::TempFolder;

std::string Refused(const std::string& path) {
  try {
    LoadRecipe(path, {});
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(RecipeFile, NamesOfOtherSystemsInItAreNotesWhereNothingIsWrong) {
  const TempFolder temp;
  RealFileSystem().WriteFileAtomic(temp / "r.toml",
                                   "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = "
                                   "\"answer\"\n[algorithm]\nbeta = 0.04\n");
  std::vector<std::string> problems, notes;
  EXPECT_EQ(ReadRecipe(temp / "r.toml", {}, problems, &notes).config.algorithm.kl_coef, 0.04);
  EXPECT_EQ(notes, std::vector<std::string>{"algorithm.beta is taken as algorithm.kl_coef"});
  EXPECT_TRUE(problems.empty());
  notes.clear();
  ReadRecipe(temp / "r.toml", {"algorithm.epochs=0"}, problems, &notes);
  EXPECT_FALSE(problems.empty());
  EXPECT_TRUE(notes.empty()) << notes.front();
}

TEST(RecipeFile, OneThatIsNotThereIsToldWhichIsNear) {
  const TempFolder temp;
  RealFileSystem().WriteFileAtomic(temp / "sums_ppo.toml", "");
  const std::string said = Refused(temp / "sums_ppp.toml");
  EXPECT_NE(said.find("did you mean '" + (temp / "sums_ppo.toml") + "'?"), std::string::npos)
      << said;
  EXPECT_NE(Refused("").find("name a TOML file"), std::string::npos);
  EXPECT_NE(Refused(temp / "").find("a recipe"), std::string::npos) << "a folder is none";
}

}  // namespace
}  // namespace plumb::configs
