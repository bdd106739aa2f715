// plumb model info through the command line.
#include <gtest/gtest.h>

#include "tests/run/cli_runner.h"
#include "tests/run/models/toy_model.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using testing::Has;
using testing::RunPlumb;

TEST(ModelCommand, InfoIsTextOrJsonAndItsExitCodeSaysWhetherItLoads) {
  const plumb::testing::TempFolder temp;
  const std::string folder = temp / "model";
  testing::WriteToyModel(folder);
  const auto text = RunPlumb({"model", "info", folder});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_TRUE(Has(text.out, "llama") && Has(text.out, "loads         yes")) << text.out;
  EXPECT_LT(text.out.find("family"), text.out.find("loads"));
  const auto json = RunPlumb({"model", "info", folder, "--json", "--rank", "2", "--batch", "5"});
  EXPECT_EQ(nlohmann::json::parse(json.out)["lora"]["rank"], 2);
  EXPECT_EQ(nlohmann::json::parse(json.out)["generate_bytes"]["batch"], 5);
  EXPECT_EQ(RunPlumb({"model", "info", folder, "--length", "65"}).code, 2) << "64 positions";
  RealFileSystem().Remove(folder + "/model.safetensors");
  const auto broken = RunPlumb({"model", "info", folder});
  EXPECT_EQ(broken.code, 9);
  EXPECT_TRUE(Has(broken.out, "safetensors")) << broken.out;
}

}  // namespace
}  // namespace plumb::run
