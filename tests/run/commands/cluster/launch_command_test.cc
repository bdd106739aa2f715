#include <gtest/gtest.h>

#include "configs/config.h"
#include "run/commands/cluster/cluster_commands.h"
#include "run/roles/cluster/role_files.h"
#include "tests/run/cli_runner.h"
#include "tests/testing/paths.h"

namespace plumb::run::testing {
namespace {

const std::string kRecipe = "configs/arithmetic_grpo.toml";

TEST(LaunchCommand, WritesWhatEachSchedulerTakesWithTheDigestOfTheHeadsRecipe) {
  const std::string recipe = plumb::testing::SourcePath(kRecipe);
  const std::string digest = RecipeDigest(configs::LoadRecipe(recipe, {"run.seed=3"}).config);
  const std::vector<std::string> common = {
      recipe, "--keys", "keys", "--nodes", "6", "--set", "run.seed=3", "--reward-workers", "2"};
  const auto launch = [&](const std::string& scheduler, std::vector<std::string> more = {}) {
    more.insert(more.begin(), common.begin(), common.end());
    more.insert(more.begin(), {"launch", scheduler});
    return RunPlumb(more);
  };
  const auto slurm = launch("slurm");
  ASSERT_EQ(slurm.code, 0) << slurm.err;
  EXPECT_TRUE(Has(slurm.out, "#SBATCH --nodes=6\n"));
  EXPECT_TRUE(Has(slurm.out, "#SBATCH --ntasks=6\n")) << "a head, three actors, two reward workers";
  EXPECT_TRUE(Has(slurm.out, "roles actor 3 "));
  EXPECT_TRUE(Has(slurm.out, "--recipe " + digest));
  EXPECT_EQ(launch("kubernetes").code, 2) << "it needs an image";
  const auto kubernetes = launch("kubernetes", {"--image", "plumb:1"});
  ASSERT_EQ(kubernetes.code, 0) << kubernetes.err;
  EXPECT_TRUE(Has(kubernetes.out, "kind: JobSet"));
  EXPECT_TRUE(Has(kubernetes.out, "--recipe " + digest));
  const auto ray = launch("ray");
  ASSERT_EQ(ray.code, 0) << ray.err;
  EXPECT_TRUE(Has(ray.out, "DIGEST = \"" + digest + "\""));
}

TEST(LaunchCommand, NeedsKeysOrAWordAndAScheduler) {
  const std::string recipe = plumb::testing::SourcePath(kRecipe);
  const auto keyless = RunPlumb({"launch", "slurm", recipe});
  EXPECT_EQ(keyless.code, 2);
  EXPECT_TRUE(Has(keyless.err, "keys generate")) << keyless.err;
  const auto insecure = RunPlumb({"launch", "slurm", recipe, "--insecure"});
  ASSERT_EQ(insecure.code, 0) << insecure.err;
  EXPECT_TRUE(Has(insecure.out, "--insecure"));
  EXPECT_FALSE(Has(insecure.out, "--keys"));
  EXPECT_EQ(RunPlumb({"launch", "pbs", recipe}).code, 2);
}

}  // namespace
}  // namespace plumb::run::testing
