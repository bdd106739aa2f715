#include "run/session/recipe/usual_folder.h"

#include <gtest/gtest.h>

namespace plumb::run {
namespace {

TEST(UsualFolder, IsCalledAsTheRecipe) {
  EXPECT_EQ(UsualRunFolder("recipes/mine.v2.toml"), "runs/mine.v2");
}

}  // namespace
}  // namespace plumb::run
