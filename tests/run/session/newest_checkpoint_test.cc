#include "run/session/newest_checkpoint.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/program_call.h"
#include "run/session/model_folder.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

std::string WhyNoModel(const std::string& run) {
  try {
    FindModel(run);
  } catch (const Error& e) {
    return e.what();
  }
  return "found";
}

TEST(NewestCheckpointTest, NamesTheNewestThatIsWhole) {
  const plumb::testing::TempFolder temp;
  const std::string run = temp.path(), checkpoints = temp / "checkpoints";
  RealFileSystem().WriteFileAtomic(run + "/run.json", "{}");
  EXPECT_FALSE(NewestCheckpoint(checkpoints).has_value());
  const std::string command = ": go on with " + ProgramCall() + " train --resume --out " + run;
  EXPECT_EQ(HowToGoOn(run), "there is no checkpoint of a step yet" + command);
  EXPECT_NE(WhyNoModel(run).find("has no checkpoint yet"), std::string::npos) << WhyNoModel(run);

  for (const char* name : {"step-00000004", "step-00000012", "step-00000020", "other"})
    RealFileSystem().CreateDirectories(checkpoints + "/" + name);
  for (const char* name : {"step-00000004", "step-00000012"})
    RealFileSystem().WriteFileAtomic(checkpoints + "/" + name + "/manifest.json", "{}");
  EXPECT_EQ(NewestCheckpoint(checkpoints), 12);
  EXPECT_EQ(HowToGoOn(run), "the newest checkpoint is step 12" + command);
  EXPECT_NE(WhyNoModel(run).find(checkpoints + "/step-00000012/model"), std::string::npos)
      << WhyNoModel(run);
}

}  // namespace
}  // namespace plumb::run
