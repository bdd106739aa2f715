#include "run/serve/served_models.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "tests/run/models/toy_model.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

TEST(ServedModels, TheFolderNamesTheModel) {
  const plumb::testing::TempFolder temp;
  testing::WriteToyModel(temp / "small");
  const ServedModels own(temp / "small", {.threads = 1});
  EXPECT_EQ(own.models()[0].name, "small");
  EXPECT_EQ(own.Find(""), 0);
  EXPECT_EQ(own.Find("small"), 0);
  EXPECT_EQ(own.Find("Small"), -1);
  EXPECT_EQ(ServedModels((temp / "small") + "/", {.threads = 1}).models()[0].name, "small");
  EXPECT_EQ(ServedModels(temp / "small", {.threads = 1}, "gpt").models()[0].name, "gpt");
}

TEST(ServedModels, AnAdapterOnAnotherBaseIsRefused) {
  const plumb::testing::TempFolder temp;
  testing::WriteToyModel(temp / "one");
  testing::WriteToyModel(temp / "two");
  policy_model::Weights weights = testing::ToyWeights();
  weights.AddAdapter({.rank = 2}, 1);
  policy_model::SaveModelDirectory(weights, temp / "of_two", "", temp / "two");
  ServedModels models(temp / "one", {.threads = 1});
  try {
    models.AddAdapter("a", temp / "of_two");
    FAIL() << "it would answer nonsense";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict);
  }
  EXPECT_EQ(models.models().size(), 1u);
  ServedModels adapted(temp / "of_two", {.threads = 1});
  EXPECT_THROW(adapted.AddAdapter("a", temp / "of_two"), Error) << "the base is to be named";
}

TEST(ServedModels, AnAdapterIsNamedWithItsFolder) {
  EXPECT_EQ(ReadAdapterOption("a=b/c=d"), (std::pair<std::string, std::string>("a", "b/c=d")));
  for (const char* wrong : {"a", "=b", "a=", ""}) EXPECT_THROW(ReadAdapterOption(wrong), Error);
}

}  // namespace
}  // namespace plumb::run
