// What the verbs on models take, and how a model's own wishes and the command line come together.
#include "run/commands/model_options.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

TEST(ModelOptions, TheCommandLineGoesBeforeTheModelsFile) {
  const SamplingDefaults file{
      .temperature = 0.6, .top_p = 0.95, .top_k = 20, .not_done = {"repetition_penalty = 1.1"}};
  const Sampling all = ResolveSampling({}, file);
  EXPECT_FLOAT_EQ(all.options.temperature, 0.6f);
  EXPECT_FLOAT_EQ(all.options.top_p, 0.95f);
  EXPECT_EQ(all.options.top_k, 20);
  EXPECT_EQ(all.said,
            "sampling: temperature 0.6, top_k 20, top_p 0.95 (the model's generation_config.json); "
            "generation_config.json asks for repetition_penalty = 1.1, which is not done here");
  const Sampling some = ResolveSampling({.temperature = 1.5, .top_k = 0}, file);
  EXPECT_FLOAT_EQ(some.options.temperature, 1.5f);
  EXPECT_EQ(some.options.top_k, 0);
  EXPECT_EQ(some.said.substr(0, 21), "sampling: top_p 0.95 ");
  for (const Sampling& greedy :
       {ResolveSampling({.greedy = true}, file), ResolveSampling({.temperature = 0.0}, file)}) {
    EXPECT_EQ(greedy.options.temperature, 0);
    EXPECT_EQ(greedy.said.find("sampling:"), std::string::npos) << "filters change nothing";
  }
  const Sampling own = ResolveSampling({.seed = 4}, {});
  EXPECT_EQ(own.options.temperature, 1);
  EXPECT_EQ(own.options.seed, 4u);
  EXPECT_EQ(own.said, "");
}

TEST(ModelOptions, ColumnsAreNamedByPairs) {
  EXPECT_EQ(ReadMap({"prompt=q", "answer=a=b"}),
            (std::map<std::string, std::string>{{"prompt", "q"}, {"answer", "a=b"}}));
  EXPECT_EQ(ReadMap({"prompt=q,chosen=good", "rejected=bad"}),
            (std::map<std::string, std::string>{
                {"prompt", "q"}, {"chosen", "good"}, {"rejected", "bad"}}));
  for (const char* bad : {"prompt", "=q", "prompt=", "prompt=q,", "prompt=q,prompt=r"})
    EXPECT_THROW(ReadMap({bad}), Error) << bad;
}

TEST(ModelOptions, AreParsedAlikeEverywhere) {
  CLI::App app;
  ModelOptions model;
  SamplingArguments sampling;
  AddModelOptions(&app, model);
  AddSamplingOptions(&app, sampling);
  app.parse("--dtype float32 --threads 2 --top-k 5 --stop a --stop b --greedy");
  EXPECT_EQ(model.dtype, "float32");
  EXPECT_EQ(model.threads, 2);
  EXPECT_EQ(sampling.top_k, 5);
  EXPECT_FALSE(sampling.temperature);
  EXPECT_TRUE(sampling.greedy);
  EXPECT_EQ(sampling.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_THROW(app.parse("--temperature -1"), CLI::ParseError);
}

// A run's own rows have the columns that its recipe names: a verb on the run need not be told them.
TEST(ModelOptions, ColumnsAreThoseOfTheRunWhereNoRowCanBeUsedOtherwise) {
  const plumb::testing::TempFolder temp;
  FileSystem& files = RealFileSystem();
  const std::string run = temp / "run";
  files.CreateDirectories(run);
  files.WriteFileAtomic(run + "/run.json", "{}");
  files.WriteFileAtomic(run + "/config.toml",
                        "[data]\ntrain = \"rows.jsonl\"\nmap = { prompt = \"task\" }\n"
                        "[[reward.parts]]\nkind = \"answer\"\n");
  using Map = std::map<std::string, std::string>;
  const Map of_run = {{"prompt", "task"}};
  EXPECT_EQ(ColumnsOfRun(run), of_run);
  EXPECT_TRUE(ColumnsOfRun(temp.path()).empty());
  const auto needs = [](const Map& needed) {
    return [needed](const Map& map) {
      if (map != needed) throw Error(ErrorCode::kInvalidArgument, "no row can be used");
      return map;
    };
  };
  EXPECT_EQ(WithColumnsOfRun(run, {}, needs(of_run)), of_run);
  EXPECT_EQ(WithColumnsOfRun(run, {}, needs({})), Map()) << "rows that can be used as they are";
  EXPECT_EQ(WithColumnsOfRun(run, {"prompt=q"}, needs({{"prompt", "q"}})), (Map{{"prompt", "q"}}));
  EXPECT_THROW(WithColumnsOfRun(run, {"prompt=q"}, needs(of_run)), Error) << "what is said counts";
  EXPECT_THROW(WithColumnsOfRun(run, {}, needs({{"prompt", "q"}})), Error);
  EXPECT_THROW(WithColumnsOfRun(temp.path(), {}, needs(of_run)), Error) << "no run";
}

}  // namespace
}  // namespace plumb::run
