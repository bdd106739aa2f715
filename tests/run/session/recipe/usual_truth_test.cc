// run/session/recipe/usual_truth.h: the column of right answers is found where rows name none.
#include "run/session/recipe/usual_truth.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

TEST(UsualTruthTest, AUsualColumnIsTakenUnlessAnotherIsNamed) {
  const TempFolder temp;
  const std::string file = temp / "rows.jsonl";
  const auto write = [&](const std::string& text) { RealFileSystem().WriteFileAtomic(file, text); };
  std::string said;
  write("{\"prompt\": \"1+1=\", \"solution\": \"2\"}\n");
  EXPECT_EQ(ImportWithTruths(file, {}, said).prompts.at(0).ground_truth, "2");
  EXPECT_NE(said.find("the column 'solution' is taken as the right answer"), std::string::npos);
  EXPECT_EQ(UsualTruth(replay::ImportPrompts(file, {}).prompts), "solution");
  said.clear();
  write("{\"prompt\": \"1+1=\", \"solution\": \"3\", \"answer\": \"2\"}\n");
  EXPECT_EQ(ImportWithTruths(file, {}, said).prompts.at(0).ground_truth, "2");
  EXPECT_EQ(said, "");
  write(
      "{\"prompt\": \"1+1=\", \"solution\": \"\", \"gold\": \"2\"}\n"
      "{\"prompt\": \"1+1=\", \"solution\": \"2\", \"gold\": \"2\"}\n");
  EXPECT_EQ(UsualTruth(replay::ImportPrompts(file, {}).prompts), "gold") << "the others are empty";
  write("{\"prompt\": \"1+1=\", \"topic\": \"sums\"}\n");
  EXPECT_THROW(ImportWithTruths(file, {}, said), Error);
}

}  // namespace
}  // namespace plumb::run
