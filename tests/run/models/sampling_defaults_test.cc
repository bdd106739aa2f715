// generation_config.json as the models of the hub have it.
#include "run/models/sampling_defaults.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "tests/run/models/toy_model.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

SamplingDefaults Of(const std::string& json) {
  const plumb::testing::TempFolder temp;
  testing::WriteFile(temp / "generation_config.json", json);
  return ReadSamplingDefaults(temp.path());
}

TEST(SamplingDefaults, TakesWhatIsNamedAndSaysWhatIsNotDone) {
  // Qwen/Qwen3-0.6B
  const SamplingDefaults qwen = Of(R"({"bos_token_id": 1, "do_sample": true, "eos_token_id": [2, 3],
      "pad_token_id": 1, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "transformers_version": "4"})");
  EXPECT_EQ(qwen.temperature, 0.6);
  EXPECT_EQ(qwen.top_k, 20);
  EXPECT_EQ(qwen.top_p, 0.95);
  EXPECT_FALSE(qwen.min_p);
  EXPECT_TRUE(qwen.not_done.empty());
  // Qwen/Qwen2.5
  const SamplingDefaults older =
      Of(R"({"repetition_penalty": 1.1, "temperature": 0.7, "top_k": -1})");
  ASSERT_EQ(older.not_done.size(), 1u);
  EXPECT_EQ(older.not_done[0], "repetition_penalty = 1.1");
  EXPECT_EQ(older.top_k, 0) << "-1 is off";
  EXPECT_TRUE(Of(R"({"repetition_penalty": 1.0, "num_beams": 1})").not_done.empty());
}

TEST(SamplingDefaults, NothingNamedIsNothingTaken) {
  EXPECT_TRUE(Of(R"({"eos_token_id": 2})").empty());
  EXPECT_EQ(Of(R"({"do_sample": false})").temperature, 0.0) << "greedy";
  EXPECT_FALSE(Of(R"({"do_sample": false, "top_p": 0.9})").temperature);
  EXPECT_TRUE(ReadSamplingDefaults("/nonexistent").empty());
}

TEST(SamplingDefaults, NumbersThatCannotBeAreErrorsOfTheFile) {
  for (const char* json : {R"({"temperature": -1})", R"({"top_p": 2})", R"({"top_k": "many"})",
                           R"({"min_p": null, "temperature": true})", "[]", "{"}) {
    EXPECT_THROW(Of(json), Error) << json;
  }
}

}  // namespace
}  // namespace plumb::run
