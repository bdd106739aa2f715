#include "common/base/place.h"

#include <gtest/gtest.h>

#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

void Make(const std::string& folder, const std::vector<std::string>& files) {
  RealFileSystem().CreateDirectories(folder);
  for (const std::string& file : files) RealFileSystem().WriteFileAtomic(folder + "/" + file, "");
}

TEST(PlaceTest, IsKnownByTheFilesInIt) {
  const testing::TempFolder temp;
  EXPECT_EQ(PlaceOf(temp / "none"), Place::kNothing);
  EXPECT_EQ(PlaceOf(""), Place::kNothing);
  Make(temp / "model", {"config.json", "model.safetensors"});
  EXPECT_EQ(PlaceOf(temp / "model"), Place::kModel);
  EXPECT_EQ(PlaceOf(temp / "model/model.safetensors"), Place::kWeights);
  Make(temp / "adapter", {"adapter_config.json"});
  EXPECT_EQ(PlaceOf(temp / "adapter"), Place::kAdapter);
  Make(temp / "store", {"CURRENT", "IDENTITY"});
  EXPECT_EQ(PlaceOf(temp / "store"), Place::kStore);
  Make(temp / "run", {"run.json", "config.toml"});
  EXPECT_EQ(PlaceOf(temp / "run"), Place::kRun);
  EXPECT_EQ(PlaceOf(temp / "run/config.toml"), Place::kRecipe);
  Make(temp / "run/checkpoints/step-00000002", {"manifest.json"});
  Make(temp / "run/checkpoints/step-00000010", {"manifest.json"});
  EXPECT_EQ(PlaceOf(temp / "run/checkpoints"), Place::kCheckpoints);
  EXPECT_EQ(PlaceOf(temp / "run/checkpoints/step-00000002"), Place::kCheckpoint);
  Make(temp / "empty", {});
  EXPECT_EQ(PlaceOf(temp / "empty"), Place::kEmptyFolder);
  EXPECT_EQ(PlaceOf(temp.path()), Place::kFolder);
  Make(temp / "files", {"a.jsonl", "b.csv.gz", "c.gguf", "d", "e.py"});
  EXPECT_EQ(PlaceOf(temp / "files/a.jsonl"), Place::kRows);
  EXPECT_EQ(PlaceOf(temp / "files/b.csv.gz"), Place::kRows);
  EXPECT_EQ(PlaceOf(temp / "files/c.gguf"), Place::kGguf);
  EXPECT_EQ(PlaceOf(temp / "files/d"), Place::kUnknown);
  EXPECT_EQ(PlaceOf(temp / "files/e.py"), Place::kPython);
}

TEST(PlaceTest, SaysWhatTakesIt) {
  const testing::TempFolder temp;
  Make(temp / "adapter", {"adapter_config.json"});
  const std::string adapter = NotWhatIsWanted(temp / "adapter", "a model folder");
  EXPECT_NE(adapter.find("`plumb convert " + temp / "adapter" + " DIR` makes one model"),
            std::string::npos)
      << adapter;
  Make(temp / "run", {"run.json"});
  Make(temp / "run/store", {"CURRENT", "IDENTITY"});
  const std::string run = temp / "run", store = temp / "run/store";
  EXPECT_EQ(NotWhatIsWanted(store, "a model"),
            "is a store, not a model: `plumb store inspect " + store + "` looks into it");
  EXPECT_EQ(NotWhatIsWanted(run, "a store"),
            "is a run's folder, not a store: its store is " + store);
  Make(temp / "run/model", {"config.json"});
  EXPECT_EQ(NotWhatIsWanted(run, "a recipe"), "is a run's folder, not a recipe: its model is " +
                                                  run + "/model, its store is " + store);
  EXPECT_EQ(NotWhatIsWanted(run + "/model", "a store"),
            "is a model folder, not a store: `plumb "
            "model info " +
                run + "/model` says what is in it");
  Make(run + "/checkpoints/step-00000002", {"manifest.json"});
  Make(run + "/checkpoints/step-00000010", {"manifest.json"});
  EXPECT_EQ(NotWhatIsWanted(run + "/checkpoints", "a model"),
            "holds a run's checkpoints, not a model: the newest model is " + run +
                "/checkpoints/step-00000010/model");
  EXPECT_EQ(NotWhatIsWanted(temp / "none", "a model"), "there is nothing here");
  EXPECT_EQ(NotWhatIsWanted("", "a model"), "is an empty name");
}

}  // namespace
}  // namespace plumb
