// Files, mappings, sizes and clocks. common/base/file.h, common/base/clock.h,
// common/base/checked_math.h
#include "common/base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <limits>

#include "common/base/checked_math.h"
#include "common/base/error.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/faulty_file_system.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

using testing::FaultyFileSystem;
using testing::TempFolder;

template <class Action>
ErrorCode CodeOf(Action action) {
  try {
    action();
  } catch (const Error& e) {
    return e.code();
  }
  return ErrorCode{};
}

TEST(File, WritesReadsListsRemoves) {
  TempFolder folder;
  FileSystem& files = RealFileSystem();
  files.CreateDirectories(folder / "a/b");
  files.CreateDirectories(folder / "a/b");
  const std::string text = std::string("hello\0world", 11) + std::string(100000, 'x');
  files.WriteFileAtomic(folder / "a/b/f", text);
  EXPECT_EQ(files.ReadFile(folder / "a/b/f", text.size()), text);
  EXPECT_EQ(files.FileSize(folder / "a/b/f"), text.size());
  EXPECT_EQ(CodeOf([&] { files.ReadFile(folder / "a/b/f", text.size() - 1); }),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(CodeOf([&] { files.ReadFile(folder / "none", 10); }), ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf([&] { files.ReadFile(folder / "a", 10); }), ErrorCode::kIo);
  EXPECT_GT(files.ReadFile("/proc/self/status", 1 << 20).size(), 100u);  // no size to begin with
  files.WriteFileAtomic(folder / "a/b/e", "");
  EXPECT_EQ(files.ReadFile(folder / "a/b/e", 0), "");
  EXPECT_EQ(files.List(folder / "a/b"), (std::vector<std::string>{"e", "f"}));
  files.Remove(folder / "a/b/e");
  EXPECT_FALSE(files.Exists(folder / "a/b/e"));
  EXPECT_EQ(CodeOf([&] { files.Remove(folder / "a/b/e"); }), ErrorCode::kNotFound);
  files.RemoveAll(folder / "a");
  files.RemoveAll(folder / "a");
  EXPECT_TRUE(files.List(folder.path()).empty());
}

TEST(File, AppendsAndTruncates) {
  TempFolder folder;
  for (int i = 0; i < 2; ++i) {
    const auto file = RealFileSystem().OpenAppend(folder / "log");
    file->Append("line\n");
    file->Sync();
  }
  EXPECT_EQ(RealFileSystem().ReadFile(folder / "log", 100), "line\nline\n");
  RealFileSystem().OpenAppend(folder / "log", true)->Append("new");
  EXPECT_EQ(RealFileSystem().ReadFile(folder / "log", 100), "new");
}

TEST(File, FullDiskIsNoSpaceWithThePath) {
  try {
    RealFileSystem().OpenAppend("/dev/full")->Append("x");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNoSpace);
    EXPECT_EQ(e.where(), "/dev/full");
  }
}

// Whatever operation fails, in whatever way: the old content or the new one, never a mixture, and
// no temp file.
TEST(File, AtomicWriteIsAtomicUnderEveryFault) {
  using Fault = FaultyFileSystem::Fault;
  TempFolder folder;
  const std::string path = folder / "f";
  FaultyFileSystem files;
  files.WriteFileAtomic(path, "probe");
  const int64_t operations = files.operations();
  ASSERT_EQ(operations, 5);  // open, append, sync, rename, sync of the folder
  for (const Fault fault : {Fault::kIo, Fault::kNoSpace, Fault::kTorn}) {
    for (int64_t n = 1; n <= operations; ++n) {
      RealFileSystem().WriteFileAtomic(path, "old content");
      files.FailAt(n, fault);
      const ErrorCode code = CodeOf([&] { files.WriteFileAtomic(path, "new content"); });
      EXPECT_EQ(code, fault == Fault::kNoSpace ? ErrorCode::kNoSpace : ErrorCode::kIo) << n;
      EXPECT_TRUE(files.fired());
      EXPECT_EQ(RealFileSystem().ReadFile(path, 100),
                n == operations ? "new content" : "old content")
          << n;
      if (fault != Fault::kTorn) {
        EXPECT_EQ(RealFileSystem().List(folder.path()).size(), 1u) << n;
      }
      for (const auto& name : RealFileSystem().List(folder.path())) {
        if (name != "f") RealFileSystem().Remove(folder / name);
      }
    }
  }
}

TEST(File, MapsAFile) {
  TempFolder folder;
  RealFileSystem().WriteFileAtomic(folder / "f", "mapped bytes");
  const auto mapped = MappedFile::Open(folder / "f");
  EXPECT_EQ(mapped->text(), "mapped bytes");
  EXPECT_EQ(mapped->bytes().size(), 12u);
  RealFileSystem().WriteFileAtomic(folder / "f", "other");  // a new file: the mapping stays
  EXPECT_EQ(mapped->text(), "mapped bytes");
  RealFileSystem().WriteFileAtomic(folder / "empty", "");
  EXPECT_TRUE(MappedFile::Open(folder / "empty")->bytes().empty());
  EXPECT_EQ(CodeOf([&] { MappedFile::Open(folder / "none"); }), ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf([&] { MappedFile::Open(folder.path()); }), ErrorCode::kInvalidArgument);
}

TEST(CheckedMath, OverflowIsAnError) {
  EXPECT_EQ(CheckedAdd<uint64_t>(2, 3), 5u);
  EXPECT_EQ(CheckedMul<int32_t>(-4, 3), -12);
  EXPECT_EQ(CheckedMul(size_t{1} << 32, size_t{1} << 31), size_t{1} << 63);
  EXPECT_EQ(CodeOf([] { CheckedMul(size_t{1} << 32, size_t{1} << 32, "bytes"); }),
            ErrorCode::kCorruption);
  EXPECT_EQ(CodeOf([] { CheckedAdd(std::numeric_limits<uint64_t>::max(), 1); }),
            ErrorCode::kCorruption);
  EXPECT_EQ(CodeOf([] { CheckedAdd(std::numeric_limits<int64_t>::min(), -1); }),
            ErrorCode::kCorruption);
}

TEST(Clock, RealAndFake) {
  const int64_t before = RealClock().MonotonicMs();
  EXPECT_GE(RealClock().MonotonicMs(), before);
  EXPECT_GT(RealClock().WallMs(), 1'600'000'000'000);
  testing::FakeClock clock(5);
  clock.Advance(7);
  EXPECT_EQ(clock.MonotonicMs(), 12);
}

}  // namespace
}  // namespace plumb
