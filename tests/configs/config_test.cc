// configs/config.h: every problem at once, with its place; aliases, overrides, origins, round trip.
#include "configs/config.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "configs/fields.h"
#include "configs/recipe_text.h"
#include "tests/testing/temp_folder.h"

namespace plumb::configs {
namespace {

constexpr char kMinimal[] = R"([data]
train = "arithmetic"
[[reward.parts]]
kind = "answer"
)";

std::string ProblemsOf(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    ParseRecipe(text, "r.toml", overrides);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
  return "";
}

TEST(ConfigTest, DefaultsAndOrigins) {
  const Loaded loaded = ParseRecipe(kMinimal, "r.toml", {"rollout.temperature=0.7"});
  EXPECT_EQ(loaded.config.data.train, "arithmetic");
  EXPECT_EQ(loaded.config.rollout.temperature, 0.7);
  EXPECT_EQ(loaded.origins.at("data.train"), "r.toml:2");
  EXPECT_EQ(loaded.origins.at("rollout.temperature"), "--set");
  EXPECT_EQ(loaded.origins.at("run.seed"), "default");
}

TEST(ConfigTest, UnknownKeyNamesTheNearest) {
  const std::string problems = ProblemsOf(std::string(kMinimal) + "[rollout]\ntemprature = 1.0\n");
  EXPECT_NE(problems.find("r.toml:6: unknown key 'rollout.temprature'"), std::string::npos)
      << problems;
  EXPECT_NE(problems.find("did you mean 'rollout.temperature'"), std::string::npos) << problems;
}

// A path would end there, and another file be taken.
TEST(ConfigTest, ATextWithTheCharacterNulIsRefused) {
  const std::string problems = ProblemsOf("[data]\ntrain = \"a\\u0000b\"\n");
  EXPECT_NE(problems.find("r.toml:2: data.train holds the character NUL"), std::string::npos)
      << problems;
}

TEST(ConfigTest, AllProblemsAtOnce) {
  const std::string problems = ProblemsOf(R"([run]
steps = "many"
roles = "elsewhere"
[rolout]
n = 4
[data]
train = "arithmetic"
[rollout]
samples_per_prompt = 1
)");
  for (const char* part :
       {"r.toml:2: run.steps has to be a whole number", "run.roles = \"elsewhere\" is not known",
        "unknown key 'rolout', did you mean 'rollout'?", "samples_per_prompt has to be at least 2",
        "there is no [[reward.parts]]"}) {
    EXPECT_NE(problems.find(part), std::string::npos) << part << "\nin\n" << problems;
  }
}

TEST(ConfigTest, ANumberBeyond64BitsIsCalledSo) {
  const std::string number = "99999999999999999999";
  try {
    ParseRecipe("[data]\ntrain = \"arithmetic\"\n", "r.toml", {"run.steps=" + number});
    FAIL();
  } catch (const Error& e) {
    const std::string what = e.what();
    EXPECT_NE(what.find("run.steps has to be a whole number of at most 64 bits"), std::string::npos)
        << what;
  }
}

TEST(ConfigTest, ANumberInQuotesIsToldToLeaveThem) {
  const std::string said = ProblemsOf("[run]\nsteps = \"100\"\n" + std::string(kMinimal));
  EXPECT_NE(said.find("r.toml:2: run.steps has to be a whole number, without quotes: 100"),
            std::string::npos)
      << said;
}

TEST(ConfigTest, APartIsReachedByItsNumber) {
  const std::string text =
      std::string(kMinimal) + "[[reward.parts]]\nname = \"b\"\nkind = \"length\"\n";
  const std::string said = ProblemsOf(text, {"reward.parts.b.kind=python"});
  EXPECT_NE(said.find("use reward.parts.NUMBER.KEY=VALUE; numbers begin at 0, part 'b' is "
                      "reward.parts.1"),
            std::string::npos)
      << said;
}

TEST(ConfigTest, AGpuIsNamedByItsNumber) {
  const auto with = [](const std::string& device) {
    return std::string(kMinimal) + "[run]\ndevice = \"" + device + "\"\n";
  };
  for (const char* device : {"cpu", "cuda", "cuda:1"})
    EXPECT_EQ(ParseRecipe(with(device), "r.toml").config.run.device, device);
  const std::string problems = ProblemsOf(with("cuda:first"));
  EXPECT_NE(problems.find("run.device = \"cuda:first\" is not known: use one of cpu, cuda, cuda:N"),
            std::string::npos)
      << problems;
}

TEST(ConfigTest, AliasesAreAcceptedOnce) {
  const Loaded loaded = ParseRecipe(
      std::string(kMinimal) + "[rollout]\nnum_generations = 4\nmax_completion_length = 9\n" +
          "[algorithm]\nbeta = 0.01\nepsilon_high = 0.28\n",
      "r.toml");
  EXPECT_EQ(loaded.config.rollout.samples_per_prompt, 4);
  EXPECT_EQ(loaded.config.rollout.max_new_tokens, 9);
  EXPECT_EQ(loaded.config.algorithm.kl_coef, 0.01);
  EXPECT_EQ(loaded.config.algorithm.clip_high, 0.28);
  const std::string twice =
      ProblemsOf(std::string(kMinimal) + "[rollout]\nn = 4\nsamples_per_prompt = 4\n");
  EXPECT_NE(twice.find("is given twice, as 'n' and as 'samples_per_prompt'"), std::string::npos)
      << twice;
}

TEST(ConfigTest, OverridesReachEverywhere) {
  const Loaded loaded =
      ParseRecipe(kMinimal, "r.toml",
                  {"run.out=runs/x", "rollout.stop=[\"a\", \"b\"]", "reward.parts.0.weight=0.5",
                   "model.tied=false", "run.steps=7"});
  EXPECT_EQ(loaded.config.run.out, "runs/x");
  EXPECT_EQ(loaded.config.rollout.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(loaded.config.reward.parts.at(0).weight, 0.5);
  EXPECT_FALSE(loaded.config.model.tied);
  EXPECT_EQ(loaded.config.run.steps, 7);
  EXPECT_NE(ProblemsOf(kMinimal, {"nonsense"}).find("section.key=value"), std::string::npos);
  EXPECT_NE(ProblemsOf(kMinimal, {"reward.parts.3.weight=1"}).find("1 reward parts"),
            std::string::npos);
  EXPECT_NE(ProblemsOf(kMinimal, {"run.step=1"}).find("did you mean 'run.steps'"),
            std::string::npos);
}

TEST(ConfigTest, APartOfTheRewardCanBeMadeByOverrides) {
  const Loaded loaded = ParseRecipe("[data]\ntrain = \"arithmetic\"\n", "r.toml",
                                    {"reward.parts.0.kind=answer", "reward.parts.1.kind=length",
                                     "reward.parts.1.max_tokens=9", "reward.parts.0.weight=2"});
  ASSERT_EQ(loaded.config.reward.parts.size(), 2u);
  EXPECT_EQ(loaded.config.reward.parts[0].kind, "answer");
  EXPECT_EQ(loaded.config.reward.parts[0].weight, 2);
  EXPECT_EQ(loaded.config.reward.parts[1].max_tokens, 9);
  EXPECT_EQ(ProblemsOf(kMinimal, {"reward.parts.2.weight=1"}),
            "--set reward.parts.2.weight: the recipe has 1 reward parts; the next one is "
            "reward.parts.1");
}

TEST(ConfigTest, AContradictionIsWhereItsOptionWasGiven) {
  EXPECT_EQ(ProblemsOf(kMinimal, {"run.steps=-3"}),
            "--set run.steps=-3: run.steps = -3 has to be at least 0.");
  EXPECT_EQ(
      ProblemsOf(kMinimal, {"run.seed=4", "run.max_staleness=2"}),
      "--set run.max_staleness=2: run.max_staleness > 0 needs run.schedule = \"async\": under "
      "sync every batch is sampled by its own version.");
  EXPECT_EQ(ProblemsOf(std::string(kMinimal) + "[run]\nsteps = -3\n", {"run.seed=4"}),
            "r.toml:6: run.steps = -3 has to be at least 0.");
}

TEST(ConfigTest, ContradictionsAreSentences) {
  const auto has = [](const std::string& extra, const std::string& sentence) {
    const std::string problems = ProblemsOf(std::string(kMinimal) + extra);
    EXPECT_NE(problems.find(sentence), std::string::npos) << sentence << "\nin\n" << problems;
  };
  has("[run]\nmax_staleness = 2\n", "needs run.schedule = \"async\"");
  has("[run]\nschedule = \"async\"\n", "needs run.max_staleness >= 1");
  has("[rollout]\nkv_after_update = \"recompute\"\n", "under run.schedule = \"sync\" none does");
  has("[run]\nkeep_checkpoints = 0\n", "run.keep_checkpoints = 0 has to be at least 1");
  has("[model]\nheads = 3\n", "multiple of model.heads");
  has("[model]\nnorms = [\"layernorm\", \"batchnorm\"]\n", "model.norms holds \"rmsnorm\"");
  has("[model]\nnorms = []\n", "model.norms holds \"rmsnorm\"");
  has("[model]\nglobal_every = 8\n", "set model.window");
  has("[model]\nkv_rank = 32\n", "set model.attention = \"latent\"");
  has("[model]\nattention = \"latent\"\nrope_dim = 3\n", "model.rope_dim has to be even");
  has("[model]\nattention = \"latent\"\nsinks = true\n", "latent attention has none");
  has("[model]\npath = \"models/x\"\nattention = \"latent\"\n",
      "model.rope_dim are of a new model");
  has("[algorithm]\ndual_clip = 0.5\n", "more than 1");
  has("[rollout]\ntemperature = 0\n", "rollout.temperature = 0.0 has to be in (0, 100]");
  has("[model]\npath = \"m\"\nsinks = true\n", "model.sinks are of a new model");
  has("[model]\npath = \"m\"\ngate_top_k = 4\n", "model.memory_table are of a new model");
  has("[model]\ngate_top_k = 4\n", "model.gate_top_k is about tokens outside a window");
  has("[model]\ngate_top_k = 4\nwindow = 9\nscales = [\"global\"]\n", "layers that have it");
  has("[model]\ngate_top_k = 4\nwindow = 9\nglobal_every = 3\n", "take one of them out");
  has("[model]\nscales = [\"far\"]\n", "model.scales holds \"local\", \"global\" and \"memory\"");
  has("[model]\nscales = [\"local\"]\n", "which see a window: set model.window");
  has("[model]\nscales = [\"memory\"]\n", "name their table in model.memory_table");
  has("[model]\nmemory_table = \"t\"\n", "model.memory_table is for memory layers");
  has("[model]\nattention = \"latent\"\nwindow = 9\ngate_top_k = 4\n", "are of model.attention");
  has("[eval]\nsuccess_part = \"nope\"\n", "not the name of a reward part");
  has("[run]\nrelay = 2\n", "run.relay and run.weight_deltas are of run.roles = \"cluster\"");
  has("[run]\nweight_deltas = true\n", "run.relay and run.weight_deltas are of run.roles");
  has("[run]\nrelay = 65\n", "run.relay = 65 has to be");
}

// TRL's switch is true or false, ours has names.
TEST(ConfigTest, LogCompletionsMeansAllAnswers) {
  const auto samples = [](const std::string& text, const std::vector<std::string>& sets) {
    return ParseRecipe(kMinimal + text, "r.toml", sets).config.metrics.samples;
  };
  EXPECT_EQ(samples("", {}), SampleLog::kSome);
  EXPECT_EQ(samples("[metrics]\nlog_completions = true\n", {}), SampleLog::kAll);
  EXPECT_EQ(samples("", {"metrics.log_completions=true"}), SampleLog::kAll);
  EXPECT_EQ(samples("[metrics]\nsamples = \"all\"\n", {"metrics.log_completions=false"}),
            SampleLog::kSome);
  EXPECT_NE(ProblemsOf(kMinimal, {"metrics.samples=true"}).find("a string in quotes"),
            std::string::npos);
  EXPECT_NE(ProblemsOf(kMinimal, {"metrics.log_completions=all"}).find("true or false"),
            std::string::npos);
}

// A value that cannot be is said with the place where it was given.
TEST(ConfigTest, AProblemNamesThePlaceOfItsOption) {
  const std::string recipe = std::string(kMinimal) + "[run]\nsteps = 3\nmax_staleness = 2\n";
  EXPECT_EQ(ProblemsOf(kMinimal, {"run.steps=-3"}),
            "--set run.steps=-3: run.steps = -3 has to be at least 0.");
  EXPECT_EQ(ProblemsOf(kMinimal, {"run.max_steps=-3"}),
            "--set run.max_steps=-3: run.steps = -3 has to be at least 0.")
      << "under the name that was given";
  const std::string line = std::to_string(std::count(recipe.begin(), recipe.end(), '\n'));
  EXPECT_EQ(ProblemsOf(recipe).find("r.toml:" + line + ": run.max_staleness > 0 needs"), 0u)
      << ProblemsOf(recipe);
  EXPECT_EQ(ProblemsOf(recipe, {"run.schedule=sync"}).find("--set run.schedule=sync: "), 0u)
      << ProblemsOf(recipe, {"run.schedule=sync"});
  EXPECT_EQ(ProblemsOf("[data]\ntrain = \"x\"\n").find("r.toml: there is no [[reward.parts]]"), 0u)
      << "of no option that was given";
}

TEST(ConfigTest, MalformedTomlNamesTheLine) {
  try {
    ParseRecipe("[run]\nsteps = = 3\n", "r.toml");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.where(), "r.toml:2");
  }
  EXPECT_THROW(LoadRecipe("/no/such/recipe.toml"), Error);
}

TEST(ConfigTest, TomlRoundTripIsExact) {
  const Loaded loaded = ParseRecipe(
      kMinimal, "r.toml",
      {"optimizer.learning_rate=3.3e-7", "data.system_prompt=\"a \\\"quoted\\\"\\nline\"",
       "data.map={prompt=\"q\", answer=\"a\"}", "rollout.top_p=0.95"});
  const std::string text = ToToml(loaded.config);
  const Loaded again = ParseRecipe(text, "again.toml");
  EXPECT_EQ(ToToml(again.config), text);
  EXPECT_EQ(again.config.optimizer.learning_rate, 3.3e-7);
  EXPECT_EQ(again.config.data.system_prompt, "a \"quoted\"\nline");
  EXPECT_EQ(again.config.data.map.at("answer"), "a");
}

TEST(ConfigTest, TheListingShowsEveryField) {
  const std::string table = List(ParseRecipe(kMinimal, "r.toml"), {.width = 1000});
  for (const char* key : {"run.seed", "model.layers", "rollout.samples_per_prompt",
                          "reward.parts.0.kind", "algorithm.clip_high", "metrics.samples_every"}) {
    EXPECT_NE(table.find(key), std::string::npos) << key;
  }
}

TEST(ConfigTest, ShippedRecipesAreValid) {
  int recipes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(PLUMB_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".toml") continue;
    EXPECT_NO_THROW(LoadRecipe(entry.path().string())) << entry.path();
    ++recipes;
  }
  EXPECT_GE(recipes, 2);
}

TEST(ConfigTest, OptionsOfAnotherScheduleAreRefused) {
  for (const auto& [set, said] :
       {std::pair("optimizer.decay_fraction=0.5", "optimizer.lr_schedule = \"wsd\""),
        {"optimizer.ramp_start=0.5", "optimizer.ramp_steps"}})
    EXPECT_NE(ProblemsOf(kMinimal, {set}).find(said), std::string::npos) << set;
  EXPECT_EQ(ProblemsOf(kMinimal, {"optimizer.decay_fraction=0.5", "optimizer.lr_schedule=wsd",
                                  "optimizer.ramp_start=0.5", "optimizer.ramp_steps=4"}),
            "");
}

TEST(ConfigTest, ARecipeThatIsNotThereNamesTheNearestOfItsFolder) {
  const plumb::testing::TempFolder temp;
  RealFileSystem().WriteFileAtomic(temp / "first.toml", kMinimal);
  const auto said = [&](const std::string& name) {
    try {
      LoadRecipe(temp / name);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(said("frist.toml").find("did you mean '" + temp / "first.toml" + "'?"),
            std::string::npos)
      << said("frist.toml");
  EXPECT_EQ(said("other.toml").find("did you mean"), std::string::npos) << said("other.toml");
  for (const char* name : {"e.toml", "toy_ppo.toml", "toy_grpo.toml"})
    RealFileSystem().WriteFileAtomic(temp / name, kMinimal);
  EXPECT_EQ(said("sg.toml").find("did you mean"), std::string::npos) << said("sg.toml");
  EXPECT_NE(said("toy_gpro.toml").find("did you mean '" + temp / "toy_grpo.toml" + "'?"),
            std::string::npos)
      << said("toy_gpro.toml");
}

}  // namespace
}  // namespace plumb::configs
