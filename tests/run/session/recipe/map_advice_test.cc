// run/session/recipe/map_advice.h: a column is named by --set where a verb has no --map.
#include "run/session/recipe/map_advice.h"

#include <gtest/gtest.h>

namespace plumb::run {
namespace {

TEST(MapAdviceTest, AColumnIsNamedBySet) {
  EXPECT_EQ(
      MapAdviceBySet("is it? (--map prompt=promt, in a recipe data.map = { prompt = "
                     "\"promt\" }); and (--map answer=a b, in a recipe data.map)"),
      "is it? (--set 'data.map={prompt=\"promt\"}'); and (--set 'data.map={answer=\"a b\"}')");
  for (const char* text : {"", "--map", "--map x", "--map prompt=COLUMN", "in a recipe data.map"})
    EXPECT_EQ(MapAdviceBySet(text), text);
}

}  // namespace
}  // namespace plumb::run
