// Row 7 of docs/reliability.md for the store: a flipped bit anywhere in its log, table files,
// MANIFEST or CURRENT is an Error (at the open, at a read or from Verify) or harmless: everything
// reads back as it was written. Nothing else is served, and nothing is missing without a word.
#include <sstream>
#include <utility>

#include "common/base/rng.h"
#include "replay/store/log_check.h"
#include "replay/store/store.h"
#include "tests/replay/fixtures.h"
#include "tests/testing/reliability.h"

namespace plumb::replay {
namespace {

using plumb::testing::Count;

constexpr uint64_t kGroups = 60;

std::vector<PreferenceRecord> SomePairs(int n) {
  std::vector<PreferenceRecord> pairs;
  for (int i = 0; i < n; ++i) {
    PreferenceRecord pair;
    pair.prompt_text = "prompt " + std::to_string(i);
    pair.chosen = {{"assistant", "good"}};
    pair.rejected = {{"assistant", "bad"}};
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

// A store as a killed process leaves it: some of it in table files, the rest in the log.
void Fill(const TempFolder& folder) {
  auto store = OpenStore(folder / "live");
  store->PutPrompts("train", SomePrompts(30));
  PutPreferences(*store, "pairs", SomePairs(20));
  for (uint64_t id = 0; id < kGroups; ++id) {
    store->Insert(Answer(PlainLease(id), 0, "run", 3 + static_cast<int>(id % 17)));
    if (id == 20 || id == 40) store->Flush();
    if (id == 30) store->PutEvaluation(3, 2, 40);
  }
  std::filesystem::copy(folder / "live", folder / "store");
}

// Everything that the store can be asked for; throws what it throws.
std::string Everything(const std::string& path) {
  auto store = OpenStore(path);
  std::ostringstream out;
  for (const std::string& problem : store->Verify().problems)
    throw Error(ErrorCode::kCorruption, problem, path);
  for (uint64_t id = 0; id < kGroups; ++id) {
    const auto stored = store->Read(Purpose::kTrain, id);
    out << id
        << (stored &&
                    stored->group == Answer(PlainLease(id), 0, "run", 3 + static_cast<int>(id % 17))
                ? " right\n"
                : " wrong\n");
  }
  for (const uint64_t id : store->Ids(Purpose::kTrain, 0, UINT64_MAX)) out << id << ' ';
  for (const auto& mark : store->Leases(Purpose::kTrain))
    out << mark.lease_id << ':' << mark.record.sequence << ' ';
  for (const auto& [name, rows] : store->Datasets()) {
    out << name << rows << '\n';
    for (uint64_t row = 0; row < rows; ++row) out << store->ReadPrompt(name, row).text << '\n';
  }
  for (const auto& [name, rows] : store->PreferenceDatasets()) {
    out << name << rows << store->PreferenceIdentity(name) << '\n';
    for (const auto& pair : store->ReadPreferences(name, 0, rows))
      out << pair.prompt_text << pair.chosen[0].content << '\n';
  }
  for (const auto& e : store->Evaluations())
    out << e.version << ' ' << e.samples << ' ' << e.prompts << '\n';
  out << store->Sequence() << ' ' << store->run_id();
  return out.str();
}

std::string KindOfFile(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  if (path.extension() == ".log") return "log";
  if (path.extension() == ".sst") return "table";
  if (name.starts_with("MANIFEST")) return "manifest";
  if (name == "CURRENT") return "current";
  return "";
}

TEST(FlipTest, AFlippedBitIsNoticedOrHarmless) {
  const OnlyErrorsInTheLog quiet;
  TempFolder folder(InMemory());
  Fill(folder);
  std::filesystem::copy(folder / "store", folder / "whole");
  const std::string expected = Everything(folder / "whole");
  EXPECT_EQ(expected.find("wrong"), std::string::npos);
  std::map<std::string, std::vector<std::string>> files;  // kind -> names
  for (const auto& entry : std::filesystem::directory_iterator(folder / "store")) {
    const std::string kind = KindOfFile(entry.path());
    if (!kind.empty() && entry.file_size() > 0)
      files[kind].push_back(entry.path().filename().string());
  }
  ASSERT_EQ(files.size(), 4u);
  const int flips = Count(80, 1000);
  RandomStream random(7, 0);
  std::map<std::string, std::pair<int, int>> noticed;  // kind -> noticed of
  const std::string kinds[] = {"log", "table", "manifest", "table",
                               "log", "table", "manifest", "current"};
  for (int i = 0; i < flips; ++i) {
    const std::string& kind = kinds[i % 8];
    auto& names = files[kind];
    std::sort(names.begin(), names.end());
    const std::string name = names[random.NextBelow(static_cast<uint32_t>(names.size()))];
    const std::string copy = folder / "copy";
    std::filesystem::copy(folder / "store", copy);
    std::string bytes = ReadFile(copy + "/" + name);
    const size_t at = random.NextBelow(static_cast<uint32_t>(bytes.size()));
    const uint32_t bit = random.NextBelow(8);
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
    WriteFile(copy + "/" + name, bytes);
    auto& [found, of] = noticed[kind];
    ++of;
    try {
      EXPECT_EQ(Everything(copy), expected)
          << "served: flip " << i << ", bit " << bit << " of byte " << at << " of " << name;
    } catch (const Error& e) {
      EXPECT_FALSE(e.where().empty()) << e.what();
      ++found;
    }
    std::filesystem::remove_all(copy);
  }
  std::printf("%d flipped bits, none served:", flips);
  for (const auto& [kind, n] : noticed)
    std::printf(" %s %d of %d noticed,", kind.c_str(), n.first, n.second);
  std::printf(" the others harmless\n");
  EXPECT_EQ(noticed["log"].first, noticed["log"].second);
  EXPECT_EQ(noticed["manifest"].first, noticed["manifest"].second);
}

// What RocksDB alone takes for the end of a log: a bit of a record's type makes it one of a reused
// log, a longer length at the end of the file makes it a torn one. It would open with what came
// before, and nobody would know.
TEST(FlipTest, ARecordThatPosesAsTheEndOfItsLogIsNoticed) {
  const OnlyErrorsInTheLog quiet;
  TempFolder folder(InMemory());
  Fill(folder);
  for (const auto& entry : std::filesystem::directory_iterator(folder / "store")) {
    const std::string kind = KindOfFile(entry.path()), name = entry.path().filename().string();
    if ((kind != "log" && kind != "manifest") || entry.file_size() == 0) continue;
    std::string bytes = ReadFile(entry.path().string());
    const auto length_at = [&](size_t record) {
      return static_cast<size_t>(static_cast<uint8_t>(bytes[record + 4]) |
                                 static_cast<uint8_t>(bytes[record + 5]) << 8);
    };
    size_t last = 0, second = 7 + length_at(0);
    while (last + 7 + length_at(last) < bytes.size()) last += 7 + length_at(last);
    ASSERT_LT(bytes.size(), 32768u) << "one block is what this test understands";
    ASSERT_GT(last, second);
    for (const auto& [at, bit] : {std::pair{second + 6, 4}, std::pair{last + 5, 64}}) {
      std::filesystem::copy(folder / "store", folder / "copy");
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ bit);
      WriteFile(folder / ("copy/" + name), damaged);
      EXPECT_THROWS(ErrorCode::kCorruption, name, OpenStore(folder / "copy"));
      std::filesystem::remove_all(folder / "copy");
    }
  }
}

void WriteAt(const std::string& path, size_t at, char byte) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(byte);
}

// Every single bit of a log and a MANIFEST, and every place where a crash may have cut them.
TEST(FlipTest, EveryBitOfALogIsNoticedAndEveryTornEndIsFine) {
  TempFolder folder(InMemory());
  Fill(folder);
  size_t bits = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "store")) {
    const std::string kind = KindOfFile(entry.path()), path = entry.path().string();
    if ((kind != "log" && kind != "manifest") || entry.file_size() == 0) continue;
    CheckLogFile(path);
    const std::string bytes = ReadFile(path);
    for (size_t at = 0; at < bytes.size(); ++at) {
      for (int bit = 0; bit < 8; ++bit, ++bits) {
        WriteAt(path, at, static_cast<char>(bytes[at] ^ (1 << bit)));
        try {
          CheckLogFile(path);
          FAIL() << "bit " << bit << " of byte " << at << " of " << path << " was not noticed";
        } catch (const Error& e) {
          ASSERT_EQ(e.code(), ErrorCode::kCorruption);
          ASSERT_EQ(e.where(), path);
        }
      }
      WriteAt(path, at, bytes[at]);
    }
    for (size_t size = bytes.size(); size-- > 0;) {
      std::filesystem::resize_file(path, size);
      ASSERT_NO_THROW(CheckLogFile(path)) << "cut at " << size;
    }
  }
  EXPECT_GT(bits, 100'000u);
  std::printf("%zu bits of log and MANIFEST, each flip noticed\n", bits);
}

}  // namespace
}  // namespace plumb::replay
