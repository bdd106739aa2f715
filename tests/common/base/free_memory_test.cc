#include "common/base/free_memory.h"

#include <gtest/gtest.h>

#include <vector>

#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

struct FakeRoot {
  testing::TempFolder folder;
  void Put(const std::string& path, const std::string& text) {
    const std::string at = folder / path;
    RealFileSystem().CreateDirectories(at.substr(0, at.rfind('/')));
    RealFileSystem().WriteFileAtomic(at, text);
  }
};

TEST(FreeMemoryTest, TheTightestBoundCounts) {
  FakeRoot root;
  EXPECT_EQ(FreeHostBytes(root.folder.path()), INT64_MAX) << "nothing says anything";
  root.Put("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:    4000 kB\n");
  EXPECT_EQ(FreeHostBytes(root.folder.path()), 4000 * 1024);
  root.Put("proc/self/cgroup", "0::/jobs/one\n");
  root.Put("sys/fs/cgroup/jobs/one/memory.max", "max\n");
  EXPECT_EQ(FreeHostBytes(root.folder.path()), 4000 * 1024);
  // The group above has a limit; of what it uses, pages of files can go.
  root.Put("sys/fs/cgroup/jobs/memory.max", "3000000\n");
  root.Put("sys/fs/cgroup/jobs/memory.current", "1200000\n");
  root.Put("sys/fs/cgroup/jobs/memory.stat", "anon 5\ninactive_file 200000\n");
  EXPECT_EQ(FreeHostBytes(root.folder.path()), 2000000);
  root.Put("sys/fs/cgroup/jobs/one/memory.max", "700000\n");
  root.Put("sys/fs/cgroup/jobs/one/memory.current", "800000\n");
  EXPECT_EQ(FreeHostBytes(root.folder.path()), 0) << "never less than nothing";
}

TEST(FreeMemoryTest, ThisMachineHasSomeAndThisProcessTakesSome) {
  EXPECT_GT(FreeHostBytes(), 1 << 20);
  const int64_t before = ResidentBytes();
  EXPECT_GT(before, 1 << 20);
  const std::vector<char> taken(size_t{64} << 20, 1);
  EXPECT_GT(ResidentBytes(), before + (int64_t{48} << 20)) << taken.size();
}

}  // namespace
}  // namespace plumb
