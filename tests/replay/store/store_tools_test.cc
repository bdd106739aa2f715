// Snapshot, usage, explain and export of a store.
#include <nlohmann/json.hpp>

#include "replay/datasets/dump.h"
#include "replay/store/rocks.h"
#include "replay/store/store.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

TEST(StoreToolsTest, ASnapshotIsAStoreOfItsOwn) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  store->PutPrompts("train", SomePrompts(5));
  store->Insert(PlainGroup(1));
  store->Snapshot(folder / "deep/copy");
  store->Insert(PlainGroup(2));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "is there already",
                store->Snapshot(folder / "deep/copy"));
  auto copy = OpenStore(folder / "deep/copy");
  EXPECT_EQ(copy->PromptCount("train"), 5u);
  EXPECT_EQ(copy->Read(Purpose::kTrain, 1)->group, PlainGroup(1));
  EXPECT_FALSE(copy->Contains(Purpose::kTrain, 2));
  EXPECT_EQ(copy->Insert(PlainGroup(3)), InsertResult::kInserted);  // the original does not see it
  EXPECT_FALSE(store->Contains(Purpose::kTrain, 3));
  EXPECT_TRUE(copy->Verify().problems.empty());
}

TEST(StoreToolsTest, ExportAndExplainWhileTheStoreIsHeld) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  for (uint64_t id = 0; id < 3; ++id) store->Insert(PlainGroup(id));
  store->Insert(PlainGroup(7, Purpose::kEval));
  InsertDropped(*store, PlainGroup(3), "unscored");
  std::vector<nlohmann::json> lines;
  const auto keep = [&](const std::string& line) { lines.push_back(nlohmann::json::parse(line)); };
  EXPECT_EQ(ExportTrajectories(folder / "store", /*tokens=*/true, keep), 5u);
  ASSERT_EQ(lines.size(), 5u);
  const TrajectoryGroup group = PlainGroup(2);
  EXPECT_EQ(lines[2].at("lease"), 2);
  EXPECT_EQ(lines[2].at("answers").at(1).at("completion"), group.trajectories[1].completion);
  EXPECT_EQ(lines[2].at("answers").at(1).at("token_ids").get<std::vector<int32_t>>(),
            group.trajectories[1].tokens);
  EXPECT_EQ(lines[3].at("dropped"), "unscored");
  EXPECT_EQ(lines[4].at("purpose"), "eval");
  const std::string text = ExplainStore(folder / "store");
  for (const char* part : {"format 1", "run 'run'"})
    EXPECT_NE(text.find(part), std::string::npos) << part;
  // Whatever is stored is explained, here and on the page.
  const std::string page = ReadFile(PLUMB_SOURCE_DIR "/docs/store.md");
  for (int i = 0; i < kFamilies; ++i) {
    const std::string name(FamilyName(static_cast<Family>(i)));
    EXPECT_NE(text.find("\n" + name + "\n  key "), std::string::npos) << name;
    EXPECT_NE(page.find("\n| `" + name + "` |"), std::string::npos) << name;
  }
}

}  // namespace
}  // namespace plumb::replay
