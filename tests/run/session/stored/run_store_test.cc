// run/session/stored/run_store.h: verbs on stores take a run's folder, and a store that its
// checkpoint knows more of is not called whole.
#include "run/session/stored/run_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::Has;
using testing::RunPlumb;

TEST(RunStoreTest, OfARunItsStoreAndOfAStoreItself) {
  const TempFolder temp;
  const std::string run = temp / "run";
  EXPECT_EQ(StoreFolderOf(run), run) << "nothing there: said of what was named";
  RealFileSystem().CreateDirectories(run + "/store");
  EXPECT_EQ(StoreFolderOf(run), run);
  RealFileSystem().WriteFileAtomic(run + "/run.json", "{}");
  EXPECT_EQ(StoreFolderOf(run), run + "/store");
  EXPECT_EQ(StoreFolderOf(run + "/store"), run + "/store");
  EXPECT_FALSE(KnownInsertsOf(run + "/store")) << "no checkpoint yet";
  EXPECT_EQ(MissingInserts(std::nullopt, 0), "");
  EXPECT_EQ(MissingInserts(KnownInserts{"c", 3}, 3), "");
  EXPECT_TRUE(MissingInserts(KnownInserts{"c", 5}, 3)
                  .starts_with("the store has made 3 inserts, c was written after 5: 2 that"));
}

TEST(RunStoreTest, AStoreThatItsCheckpointKnowsMoreOfIsNotWhole) {
  const TempFolder temp;
  const std::string run = temp / "run", store = run + "/store";
  const auto trained = testing::Train(run, 2);
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_TRUE(Has(trained.out, "note:   the last checkpoint has no moments")) << trained.out;
  const auto known = KnownInsertsOf(store + "/");
  ASSERT_TRUE(known);
  EXPECT_GT(known->inserts, 0u);

  // Each verb takes the run's folder.
  for (const char* verb : {"inspect", "verify", "explain", "export"})
    EXPECT_EQ(RunPlumb({"store", verb, run}).code, 0) << verb;
  const auto rows = RunPlumb({"data", "export", temp / "rows.jsonl", "--store", run});
  EXPECT_EQ(rows.code, 0) << rows.err;
  EXPECT_TRUE(Has(rows.out, "prompts without answers: the run keeps no rollouts behind its") &&
              Has(rows.out, "replay.keep_steps"))
      << rows.out;
  EXPECT_EQ(RunPlumb({"store", "recover", run, "--point-in-time"}).code, 0);

  // Cut in half each log is whole in itself.
  for (const auto& entry : std::filesystem::directory_iterator(store)) {
    if (entry.path().extension() == ".log")
      std::filesystem::resize_file(entry.path(), entry.file_size() / 2);
  }
  const std::string missing =
      known->checkpoint + " was written after " + std::to_string(known->inserts);
  const auto verified = RunPlumb({"store", "verify", run});
  EXPECT_EQ(verified.code, ExitCodeOf(ErrorCode::kCorruption)) << verified.out;
  EXPECT_TRUE(Has(verified.out + verified.err, missing)) << verified.out << verified.err;
  const auto recovered =
      RunPlumb({"store", "recover", store, "--point-in-time", "--to", temp / "copy"});
  EXPECT_EQ(recovered.code, ExitCodeOf(ErrorCode::kCorruption)) << recovered.out;
  EXPECT_TRUE(Has(recovered.err, missing)) << recovered.out << recovered.err;
}

}  // namespace
}  // namespace plumb::run
