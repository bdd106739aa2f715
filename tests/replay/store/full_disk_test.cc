// Row 6 of docs/reliability.md: the disk fills up at some moment. Nothing aborts, nothing
// acknowledged is lost, an import says so and goes on later, and once there is room writing goes on
// within 15 s.
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "common/base/rng.h"
#include "replay/datasets/importer.h"
#include "replay/store/store.h"
#include "tests/replay/fixtures.h"
#include "tests/testing/reliability.h"

namespace plumb::replay {
namespace {

using plumb::testing::Count;
using SteadyClock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

// A tmpfs of a few MB for a test's lifetime.
class SmallDisk {
 public:
  explicit SmallDisk(int64_t megabytes) : path_(folder_ / "disk") {
    std::filesystem::create_directory(path_);
    const std::string size = "size=" + std::to_string(megabytes) + "m";
    mounted_ = ::geteuid() == 0 && ::mount("tmpfs", path_.c_str(), "tmpfs", 0, size.c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  uint64_t free_bytes() const {
    struct statvfs space {};
    PLUMB_CHECK(::statvfs(path_.c_str(), &space) == 0);
    return space.f_bavail * space.f_bsize;
  }
  // All but `left` bytes are taken, in one file.
  void Fill(uint64_t left) const {
    const uint64_t free = free_bytes();
    if (free > left) WriteFile(path_ + "/ballast", std::string(free - left, 'x'));
  }
  void Free() const { std::filesystem::remove(path_ + "/ballast"); }

 private:
  TempFolder folder_;
  const std::string path_;
  bool mounted_ = false;
};

constexpr char kSkipped[] =
    "SKIPPED LOUDLY: no right to mount a small tmpfs, the full disk was not tried (as a user: "
    "unshare -rm build/tests/replay_test "
    "--gtest_filter=FullDisk*)";

TEST(FullDiskTest, WritingGoesOnWhenThereIsRoom) {
  const OnlyErrorsInTheLog quiet;
  const int cycles = Count(2, 20);
  RandomStream random(6, 0);
  size_t acknowledged = 0;
  int64_t slowest_ms = 0;
  for (int cycle = 0; cycle < cycles; ++cycle) {
    SCOPED_TRACE("cycle " + std::to_string(cycle));
    const SmallDisk disk(64);
    if (!disk.mounted()) GTEST_SKIP() << kSkipped;
    std::mutex mu;
    std::set<uint64_t> acked;  // guarded by mu
    std::atomic<uint64_t> next{0};
    std::atomic<int> refused{0};
    std::atomic<bool> stop{false};
    {
      auto store = Store::Open(disk / "store", {.run_id = "run", .write_buffer_mb = 2});
      const auto write = [&] {
        while (!stop) {
          const uint64_t id = next++;
          try {
            EXPECT_EQ(store->Insert(Answer(PlainLease(id), 0, "run", 400)),
                      InsertResult::kInserted);
            std::lock_guard lock(mu);
            acked.insert(id);
          } catch (const Error& e) {
            EXPECT_EQ(ErrorCodeName(e.code()), "no_space") << e.what();
            if (e.code() != ErrorCode::kNoSpace) return;
            ++refused;
            std::this_thread::sleep_for(milliseconds(20));
          }
          std::this_thread::sleep_for(milliseconds(1));
        }
      };
      std::thread first(write), second(write);
      std::this_thread::sleep_for(milliseconds(random.NextBelow(300)));
      disk.Fill(random.NextBelow(512 << 10));
      const auto waited = SteadyClock::now();
      while (refused == 0 && SteadyClock::now() - waited < seconds(30))
        std::this_thread::sleep_for(milliseconds(5));
      EXPECT_GT(refused, 0) << "the disk never filled";
      std::this_thread::sleep_for(milliseconds(random.NextBelow(1500)));
      const size_t before = [&] {
        std::lock_guard lock(mu);
        return acked.size();
      }();
      disk.Free();
      const auto freed = SteadyClock::now();
      for (bool on = false; !on && SteadyClock::now() - freed < seconds(20);) {
        std::this_thread::sleep_for(milliseconds(5));
        std::lock_guard lock(mu);
        on = acked.size() > before;
      }
      const auto took =
          std::chrono::duration_cast<milliseconds>(SteadyClock::now() - freed).count();
      EXPECT_LE(took, 15'000) << "writing did not come back";
      slowest_ms = std::max(slowest_ms, took);
      std::this_thread::sleep_for(milliseconds(50));
      stop = true;
      first.join();
      second.join();
      EXPECT_GE(store->Counters()["no_space"], 1);
    }
    auto store = OpenStore(disk / "store");
    for (const uint64_t id : acked) {
      const auto stored = store->Read(Purpose::kTrain, id);
      ASSERT_TRUE(stored.has_value()) << "acknowledged and lost: " << id;
      ASSERT_EQ(stored->group, Answer(PlainLease(id), 0, "run", 400));
    }
    for (const uint64_t id : store->Ids(Purpose::kTrain, 0, UINT64_MAX)) ASSERT_LT(id, next);
    ASSERT_TRUE(store->Verify().problems.empty());
    acknowledged += acked.size();
  }
  std::printf(
      "%d full disks: %zu groups acknowledged, none lost; writing was back after %lld ms at most\n",
      cycles, acknowledged, static_cast<long long>(slowest_ms));
}

// The disk has room for a random part of the rows.
TEST(FullDiskTest, AnImportGoesOnLater) {
  const OnlyErrorsInTheLog quiet;
  const int cycles = Count(1, 10);
  constexpr int kRows = 48000;
  TempFolder folder;
  std::string text;
  for (int i = 0; i < kRows; ++i) {
    text += i % 100 == 99 ? "broken\n"
                          : "{\"prompt\": \"" + std::string(900, 'q') + std::to_string(i) +
                                "\", \"answer\": \"4\"}\n";
  }
  ImportRequest request = ImportOf(WriteFile(folder / "data.jsonl", text), "d");
  request.commit_rows = 8000;
  RandomStream random(6, 1);
  int continued = 0;
  for (int cycle = 0; cycle < cycles; ++cycle) {
    SCOPED_TRACE("cycle " + std::to_string(cycle));
    const SmallDisk disk(96);
    if (!disk.mounted()) GTEST_SKIP() << kSkipped;
    request.rejects = disk / "rejects.jsonl";
    disk.Fill((uint64_t{cycle == 0 ? 34u : 4 + random.NextBelow(36)}) << 20);
    {
      auto store = Store::Open(disk / "store", {.run_id = "run", .write_buffer_mb = 4});
      EXPECT_THROWS(ErrorCode::kNoSpace, "", ImportFiles(*store, request));
      EXPECT_EQ(store->PromptCount("d"), 0u) << "rows count only when the import has ended";
      disk.Free();
      const ImportReport report = ImportFiles(*store, request);
      continued += report.continued_at > 0 ? 1 : 0;
      EXPECT_EQ(report.files[0].Describe(), "read 48000 = used 47520 + 480 bad_json");
    }
    auto store = OpenStore(disk / "store");
    EXPECT_EQ(store->PromptCount("d"), 47520u);
    EXPECT_TRUE(store->Verify().problems.empty());
    const std::string rejects = ReadFile(request.rejects);
    EXPECT_EQ(std::count(rejects.begin(), rejects.end(), '\n'), 480);
  }
  EXPECT_GT(continued, 0) << "no import went on behind its first mark";
  std::printf(
      "%d imports met a full disk, %d of them behind their first mark; all ended with every row\n",
      cycles, continued);
}

}  // namespace
}  // namespace plumb::replay
