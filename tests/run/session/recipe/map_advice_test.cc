// run/session/recipe/map_advice.h: a column is named by --set where a verb has no --map.
#include "run/session/recipe/map_advice.h"

#include <gtest/gtest.h>

#include "common/base/file.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

TEST(MapAdviceTest, AColumnIsNamedBySet) {
  EXPECT_EQ(
      MapAdviceBySet("is it? (--map prompt=promt, in a recipe data.map = { prompt = "
                     "\"promt\" }); and (--map answer=a b, in a recipe data.map)"),
      "is it? (--set 'data.map={prompt=\"promt\"}'); and (--set 'data.map={answer=\"a b\"}')");
  EXPECT_EQ(MapAdviceBySet("no margin without --map margin=a-b, in a recipe data.map"),
            "no margin without --set 'data.map={margin=\"a-b\"}'");
  EXPECT_EQ(MapAdviceBySet("(name them: --map prompt=COLUMN,chosen=a b, in a recipe data.map = { "
                           "prompt = \"COLUMN\", chosen = \"a b\" })"),
            "(name them: --set 'data.map={prompt=\"COLUMN\",chosen=\"a b\"}')");
  for (const char* text : {"", "--map", "--map x", "--map prompt=COLUMN", "in a recipe data.map"})
    EXPECT_EQ(MapAdviceBySet(text), text);
}

// A role in a process of its own says its errors by itself.
TEST(MapAdviceTest, ARoleNamesWhatItsRunTakes) {
  const plumb::testing::TempFolder temp;
  RealFileSystem().WriteFileAtomic(temp / "rows.jsonl",
                                   "{\"promt\": \"1+2=\", \"answer\": \"3\"}\n");
  EXPECT_NE(testing::TrainInProgram(temp / "run", 1,
                                    {"--set", "run.roles=processes", "--set", "sft.steps=0",
                                     "--set", "data.train=" + (temp / "rows.jsonl")}),
            0);
  const std::string said = testing::Read(temp / "run.out");
  EXPECT_TRUE(testing::Has(said, "--set 'data.map={prompt=\"promt\"}'")) << said;
  EXPECT_FALSE(testing::Has(said, "--map")) << said;
}

}  // namespace
}  // namespace plumb::run
