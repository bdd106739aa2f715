// Rows 1 and 5 of docs/reliability.md for imports and exports: killed anywhere, or on a disk that
// fails by a seeded schedule, an import that is begun again ends with the ledger, the rows and the
// file of rejected rows of one that nothing happened to; an exported file is the old one, the new
// one or none.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "common/base/rng.h"
#include "replay/datasets/exporter.h"
#include "replay/datasets/importer.h"
#include "replay/store/store.h"
#include "tests/replay/faulty_disk.h"
#include "tests/replay/fixtures.h"
#include "tests/testing/faulty_file_system.h"
#include "tests/testing/reliability.h"

namespace plumb::replay {
namespace {

using plumb::testing::Count;
using plumb::testing::FaultyFileSystem;
using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

// Pairs among broken lines and duplicates; `fat` bytes more in each row make what is between two
// marks a table file of its own.
std::string Pairs(int rows, int salt, size_t fat = 0) {
  std::string text;
  for (int i = 0; i < rows; ++i) {
    text += i % 10 == 9 ? "broken\n"
                        : R"({"prompt": ")" + std::string(fat, 'f') + std::to_string(salt) + "/" +
                              std::to_string(i % (rows / 2)) +
                              R"(", "chosen": "a", "rejected": "b"})"
                              "\n";
  }
  return text;
}

ImportRequest TwoFiles(const TempFolder& folder, const std::string& rejects, int64_t commit_rows) {
  ImportRequest request;
  request.files = {folder / "one.jsonl", folder / "two.jsonl"};
  request.dataset = "d";
  request.rejects = rejects;
  request.commit_rows = commit_rows;
  return request;
}

// What an import leaves behind, for people and for machines.
struct Left {
  std::vector<std::string> ledgers, samples;
  std::vector<PreferenceRecord> rows;
  std::string identity, rejects;
  bool operator==(const Left&) const = default;
};

Left ImportAndLook(Store& store, const ImportRequest& request) {
  const ImportReport report = ImportFiles(store, request);
  Left left;
  for (const FileLedger& ledger : report.files) {
    left.ledgers.push_back(ledger.Describe());
    left.samples.insert(left.samples.end(), ledger.samples.begin(), ledger.samples.end());
  }
  left.rows = store.ReadPreferences("d", 0, UINT64_MAX);
  left.identity = store.PreferenceIdentity("d");
  left.rejects = ReadFile(request.rejects);
  EXPECT_TRUE(store.Verify().problems.empty());
  return left;
}

void ExpectSame(const Left& left, const Left& whole) {
  EXPECT_EQ(left.ledgers, whole.ledgers);
  EXPECT_EQ(left.samples, whole.samples);
  EXPECT_EQ(left.identity, whole.identity);
  EXPECT_TRUE(left.rows == whole.rows);
  EXPECT_TRUE(left.rejects == whole.rejects);
}

TEST(ImportReliabilityTest, KilledAnywhereEqualsUnbroken) {
  TempFolder folder(InMemory());
  WriteFile(folder / "one.jsonl", Pairs(3000, 1));
  WriteFile(folder / "two.jsonl", Pairs(2000, 2));
  Left whole;
  int64_t whole_ms = 0;
  {
    auto store = OpenStore(folder / "whole");
    const auto begin = SteadyClock::now();
    whole = ImportAndLook(*store, TwoFiles(folder, folder / "whole.rejects", 64));
    whole_ms = std::chrono::duration_cast<milliseconds>(SteadyClock::now() - begin).count();
  }
  RandomStream random(1, 1);
  const int kills = Count(8, 100);
  int killed = 0, ended = 0, imports = 0;
  while (killed < kills) {
    const std::string path = folder / ("store" + std::to_string(imports)),
                      rejects = folder / "rejects";
    const ImportRequest request = TwoFiles(folder, rejects, 64);
    const int lives = 1 + static_cast<int>(random.NextBelow(3));
    for (int life = 0; life < lives; ++life) {
      const pid_t child =
          StartStoreChild({"import", path, "d", rejects, "64", request.files[0], request.files[1]});
      ASSERT_GT(child, 0);
      std::this_thread::sleep_for(
          milliseconds(random.NextBelow(static_cast<uint32_t>(std::max<int64_t>(whole_ms, 40)))));
      ::kill(child, SIGKILL);
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) != 0) << "the import failed";
      (WIFSIGNALED(status) ? killed : ended) += 1;
    }
    auto store = OpenStore(path);
    ExpectSame(ImportAndLook(*store, request), whole);
    ++imports;
    if (HasFailure()) FAIL() << "import " << imports;
    store.reset();
    std::filesystem::remove_all(path);
    std::filesystem::remove(rejects);
    ASSERT_LT(ended, 4 * kills) << "the imports end before they can be killed";
  }
  std::printf(
      "%d kills of %d imports (%d more lives came to their end): each ended like an unbroken one\n",
      killed, imports, ended);
}

// A file that somebody took away between two lives is written again from the beginning.
TEST(ImportReliabilityTest, AMissingFileOfRejectsBeginsAgain) {
  TempFolder folder;
  WriteFile(folder / "one.jsonl", Pairs(200, 1));
  WriteFile(folder / "two.jsonl", Pairs(200, 2));
  ImportRequest request = TwoFiles(folder, folder / "rejects", 16);
  auto store = OpenStore(folder / "store");
  int marks = 0;
  request.progress = [&](const std::string&, double, int64_t) { return ++marks < 6; };
  EXPECT_TRUE(ImportFiles(*store, request).stopped);
  std::filesystem::remove(folder / "rejects");
  request.progress = nullptr;
  auto other = OpenStore(folder / "whole");
  ExpectSame(ImportAndLook(*store, request),
             ImportAndLook(*other, TwoFiles(folder, folder / "whole.rejects", 16)));
}

TEST(ImportReliabilityTest, OnAFaultyDiskEqualsUnbroken) {
  const OnlyErrorsInTheLog quiet;
  TempFolder folder(InMemory());
  Left whole[2];
  for (const int fat : {0, 1}) {
    const std::string files = folder / (fat == 1 ? "fat" : "thin");
    std::filesystem::create_directory(files);
    WriteFile(files + "/one.jsonl", Pairs(60, 1, fat == 1 ? 200'000 : 0));
    WriteFile(files + "/two.jsonl", Pairs(40, 2, fat == 1 ? 1'000 : 0));
  }
  const auto request = [&](int fat, const std::string& rejects) {
    ImportRequest r;
    const std::string files = folder / (fat == 1 ? "fat" : "thin");
    r.files = {files + "/one.jsonl", files + "/two.jsonl"};
    r.dataset = "d";
    r.rejects = rejects;
    r.commit_rows = fat == 1 ? 16 : 8;
    return r;
  };
  for (const int fat : {0, 1}) {
    auto store = OpenStore(folder / ("whole" + std::to_string(fat)));
    whole[fat] = ImportAndLook(*store, request(fat, folder / "whole.rejects"));
  }
  const int schedules = Count(40, 600);
  int fired = 0, failed = 0;
  for (int seed = 0; seed < schedules; ++seed) {
    SCOPED_TRACE("schedule " + std::to_string(seed));
    RandomStream random(static_cast<uint64_t>(seed), 6);
    const int fat = random.NextBelow(8) == 0 ? 1 : 0;
    const std::string path = folder / "store", rejects = folder / "rejects";
    FaultyDisk disk;
    FaultyFileSystem files;
    const int lives = 1 + static_cast<int>(random.NextBelow(3));
    for (int life = 0; life < lives; ++life) {
      const auto fault = static_cast<FaultyDisk::Fault>(random.NextBelow(FaultyDisk::kFaults));
      disk.Plan(fault, random.NextBelow(120), 1 + random.NextBelow(20));
      if (random.NextBelow(3) == 0) {
        files.FailAt(1 + random.NextBelow(20),
                     static_cast<FaultyFileSystem::Fault>(1 + random.NextBelow(3)));
      }
      try {
        auto store =
            Store::Open(path, {.run_id = "run", .write_buffer_mb = 1, .env_for_test = disk.env()});
        ImportRequest r = request(fat, rejects);
        r.file_system = &files;
        ImportFiles(*store, r);
      } catch (const Error& e) {
        ASSERT_FALSE(e.where().empty()) << e.what();
        ASSERT_TRUE(e.code() == ErrorCode::kIo || e.code() == ErrorCode::kNoSpace) << e.what();
        ++failed;
      }
      fired += disk.fired() || files.fired() ? 1 : 0;
      if (fault == FaultyDisk::Fault::kPower || random.NextBelow(2) == 0) {
        disk.CutPower(random);
        files.CutPower();
      } else {
        disk.EndProcess();
        files.FailAt(-1, FaultyFileSystem::Fault::kNone);
      }
    }
    std::unique_ptr<Store> store;
    ASSERT_NO_THROW(store = OpenStore(path));
    ASSERT_NO_THROW(ExpectSame(ImportAndLook(*store, request(fat, rejects)), whole[fat]));
    ASSERT_FALSE(HasFailure());
    store.reset();
    std::filesystem::remove_all(path);
    std::filesystem::remove(rejects);
  }
  EXPECT_GT(fired, schedules / 2);
  std::printf(
      "%d schedules, %d faults met, %d imports failed with an error; begun again each ended like "
      "an unbroken one\n",
      schedules, fired, failed);
}

// A disk that says it wrote what it did not: one bit of a table file turns over on the way.
class LyingDisk : public rocksdb::EnvWrapper {
 public:
  explicit LyingDisk(uint64_t bit) : EnvWrapper(rocksdb::Env::Default()) {
    file_system_ = std::make_shared<Files>(bit);
  }
  const char* Name() const override { return "LyingDisk"; }

 private:
  using IOStatus = rocksdb::IOStatus;
  struct File : rocksdb::FSWritableFileOwnerWrapper {
    File(std::unique_ptr<rocksdb::FSWritableFile> file, uint64_t at)
        : FSWritableFileOwnerWrapper(std::move(file)), bit(at) {}
    IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                    rocksdb::IODebugContext* debug) override {
      std::string bytes = data.ToString();
      if (bit / 8 >= begin && bit / 8 < begin + bytes.size())
        bytes[bit / 8 - begin] ^= static_cast<char>(1 << (bit % 8));
      begin += bytes.size();
      return target()->Append(bytes, options, debug);
    }
    const uint64_t bit;
    uint64_t begin = 0;
  };
  struct Files : rocksdb::FileSystemWrapper {
    explicit Files(uint64_t at) : FileSystemWrapper(rocksdb::FileSystem::Default()), bit(at) {}
    const char* Name() const override { return "LyingFiles"; }
    IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                             std::unique_ptr<rocksdb::FSWritableFile>* out,
                             rocksdb::IODebugContext* debug) override {
      IOStatus s = target()->NewWritableFile(path, options, out, debug);
      if (s.ok() && path.ends_with("ingest.tmp"))
        *out = std::make_unique<File>(std::move(*out), bit);
      return s;
    }
    const uint64_t bit;
  };
};

TEST(ImportReliabilityTest, ATableFileThatWasWrittenWrongIsNotTakenIn) {
  const OnlyErrorsInTheLog quiet;
  TempFolder folder(InMemory());
  WriteFile(folder / "one.jsonl", Pairs(60, 1, 100'000));
  WriteFile(folder / "two.jsonl", Pairs(60, 2, 100'000));
  const ImportRequest request = TwoFiles(folder, folder / "rejects", 1'000'000);
  RandomStream random(3, 3);
  for (int i = 0; i < 20; ++i) {
    const std::string path = folder / ("store" + std::to_string(i));
    const uint64_t bit = random.NextBelow(8u * 4'000'000);
    LyingDisk disk(bit);
    {
      auto store = Store::Open(path, {.run_id = "run", .env_for_test = &disk});
      try {
        ImportFiles(*store, request);
        FAIL() << "bit " << bit;
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kCorruption) << e.what();
      }
      EXPECT_EQ(store->PreferenceCount("d"), 0u);
    }
    auto store = OpenStore(path);
    EXPECT_EQ(ImportFiles(*store, request).rows, 54u);
    EXPECT_TRUE(store->Verify().problems.empty());
  }
}

// Export and atomic write: the old file, the new one, or none where there was none; once the call
// has returned, the new one.
TEST(ImportReliabilityTest, AnExportedFileIsWholeOnAFaultyDisk) {
  TempFolder folder(InMemory());
  auto store = OpenStore(folder / "store");
  store->PutPrompts("d", SomePrompts(200));
  const auto request = [&](const std::string& out, FileSystem* files) {
    ExportRequest r;
    r.dataset = "d";
    r.form = ExportForm::kTrl;
    r.out = out;
    r.files = files;
    return r;
  };
  const std::string suffixes[] = {".jsonl", ".jsonl.gz"};
  std::string fresh[2];
  for (const int packed : {0, 1}) {
    ExportDataset(*store, request(folder / ("whole" + suffixes[packed]), nullptr));
    fresh[packed] = ReadFile(folder / ("whole" + suffixes[packed]));
  }
  const int schedules = Count(60, 400);
  int failed = 0;
  for (int seed = 0; seed < schedules; ++seed) {
    SCOPED_TRACE("schedule " + std::to_string(seed));
    RandomStream random(static_cast<uint64_t>(seed), 7);
    const int kind = static_cast<int>(random.NextBelow(3));  // plain, packed, an atomic write
    const std::string path = folder / ("out" + suffixes[kind % 2]);
    const std::string expected = kind == 2 ? "new content" : fresh[kind];
    const bool old = random.NextBelow(2) == 0;
    if (old) WriteFile(path, "old");
    FaultyFileSystem files;
    files.FailAt(1 + random.NextBelow(6),
                 static_cast<FaultyFileSystem::Fault>(1 + random.NextBelow(3)));
    bool done = false;
    try {
      if (kind == 2) {
        files.WriteFileAtomic(path, expected);
      } else {
        ExportDataset(*store, request(path, &files));
      }
      done = true;
    } catch (const Error& e) {
      EXPECT_FALSE(e.where().empty()) << e.what();
      EXPECT_TRUE(e.code() == ErrorCode::kIo || e.code() == ErrorCode::kNoSpace) << e.what();
      ++failed;
    }
    files.CutPower();
    const std::string left = std::filesystem::exists(path) ? ReadFile(path) : "none";
    EXPECT_TRUE(left == expected || (!done && left == (old ? "old" : "none")))
        << left.size() << " bytes of " << expected.size();
    ASSERT_FALSE(HasFailure());
    std::filesystem::remove(path);
  }
  EXPECT_GT(failed, schedules / 2);
  std::printf("%d schedules of files, %d failed with an error: each file old or new\n", schedules,
              failed);
}

}  // namespace
}  // namespace plumb::replay
