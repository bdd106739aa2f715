// Preference datasets and cached log-probs in the store (replay/store/preference_store.cc,
// common/record/preference.cc).
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "common/base/error.h"
#include "common/record/codec.h"
#include "common/record/preference.h"
#include "replay/store/record.h"
#include "replay/store/rocks.h"
#include "replay/store/store.h"
#include "tests/replay/fixtures.h"
#include "tests/testing/temp_folder.h"

namespace plumb::replay {
namespace {

PreferenceRecord Pair(int i) {
  PreferenceRecord r;
  r.prompt = {{"system", "be brief"}, {"user", "question " + std::to_string(i)}};
  r.chosen = {{"assistant", "good " + std::to_string(i)}};
  r.rejected = {{"assistant", "bad\n" + std::to_string(i)}};
  r.margin = 0.25 * i;
  r.has_margin = i % 2 == 0;
  r.extra_json = R"({"source":"x"})";
  return r;
}

std::vector<PreferenceRecord> Pairs(int n) {
  std::vector<PreferenceRecord> out;
  for (int i = 0; i < n; ++i) out.push_back(Pair(i));
  return out;
}

ErrorCode CodeOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.code();
  }
  return ErrorCode::kUnavailable;  // nothing was thrown; no case here expects this code
}

TEST(PreferenceRecord, EncodesEveryField) {
  PreferenceRecord r = Pair(3);
  r.dataset = "hh";
  r.row = 7;
  r.kind = PreferenceKind::kLabelled;
  r.rejected.clear();
  r.desirable = true;
  r.weight = 0.5;
  r.prompt_tokens = {1, 2};
  r.chosen_tokens = {3};
  EXPECT_EQ(DecodePreferenceRecord(BytesOf(Encode(r))), r);
  PreferenceRecord text = Pair(4);
  text.prompt.clear();
  text.prompt_text = "plain";
  text.margin = -0.0;
  const PreferenceRecord back = DecodePreferenceRecord(BytesOf(Encode(text)));
  EXPECT_EQ(back, text);
  EXPECT_TRUE(std::signbit(back.margin));
  const std::string bytes = Encode(r);
  for (size_t cut = 0; cut < bytes.size(); cut += 4) {
    EXPECT_THROW(DecodePreferenceRecord(BytesOf(std::string_view(bytes).substr(0, cut))), Error)
        << cut;
  }
  EXPECT_THROW(DecodePrompt(BytesOf(bytes)), Error);
}

TEST(PreferenceRecord, BrokenRecordsAreRefused) {
  const auto refused = [](const std::function<void(PreferenceRecord&)>& spoil) {
    PreferenceRecord r = Pair(1);
    spoil(r);
    return CodeOf([&] { CheckInvariants(r); }) == ErrorCode::kInvalidArgument;
  };
  EXPECT_FALSE(refused([](PreferenceRecord&) {}));
  EXPECT_TRUE(refused([](PreferenceRecord& r) { r.chosen.clear(); }));
  EXPECT_TRUE(refused([](PreferenceRecord& r) { r.rejected.back().role = "user"; }));
  EXPECT_TRUE(refused([](PreferenceRecord& r) { r.prompt_text = "both"; }));
  EXPECT_TRUE(refused([](PreferenceRecord& r) { r.prompt.clear(); }));
  EXPECT_TRUE(refused([](PreferenceRecord& r) { r.kind = PreferenceKind::kLabelled; }));
  EXPECT_TRUE(refused([](PreferenceRecord& r) { r.chosen_tokens = {1}; }));
  EXPECT_TRUE(
      refused([](PreferenceRecord& r) { r.margin = std::numeric_limits<double>::infinity(); }));
}

TEST(PreferenceStore, RowsSurviveAndNeverChange) {
  testing::TempFolder folder;
  {
    const auto store = Store::Open(folder.path() + "/s", {.run_id = "r"});
    EXPECT_EQ(store->PreferenceCount("hh"), 0u);
    PutPreferences(*store, "hh", Pairs(20));
    PutPreferences(*store, "hh", Pairs(20));  // the same again: nothing happens
    EXPECT_EQ(CodeOf([&] { PutPreferences(*store, "hh", Pairs(19)); }), ErrorCode::kConflict);
    auto other = Pairs(20);
    other[13].chosen[0].content = "changed";
    EXPECT_EQ(CodeOf([&] { PutPreferences(*store, "hh", other); }), ErrorCode::kConflict);
    EXPECT_EQ(CodeOf([&] { PutPreferences(*store, "none", {}); }), ErrorCode::kInvalidArgument);
  }
  const auto store = Store::Open(folder.path() + "/s", {.run_id = "r"});
  EXPECT_EQ(store->PreferenceDatasets(), (std::map<std::string, uint64_t>{{"hh", 20}}));
  const auto rows = store->ReadPreferences("hh", 17, 10);
  ASSERT_EQ(rows.size(), 3u);
  for (size_t i = 0; i < rows.size(); ++i) {
    PreferenceRecord expected = Pair(17 + static_cast<int>(i));
    expected.dataset = "hh";
    expected.row = 17 + i;
    EXPECT_EQ(rows[i], expected);
  }
  EXPECT_TRUE(store->ReadPreferences("hh", 20, 1).empty());
  EXPECT_TRUE(store->ReadPreferences("other", 0, 5).empty());
  const VerifyReport report = store->Verify();
  EXPECT_EQ(report.preferences, 20u);
  EXPECT_TRUE(report.problems.empty());
}

TEST(PreferenceStore, PiecesCountOnlyOnceSealedAndMayBeBegunAgain) {
  testing::TempFolder folder;
  const auto store = Store::Open(folder.path() + "/s", {.run_id = "r"});
  const auto all = Pairs(10);
  const std::span<const PreferenceRecord> rows(all);
  uint64_t hash = kNoRowsHash;
  auto killed = Pairs(6);
  killed[2].margin = 99;
  store->AppendPreferences("p", 0, killed, hash);
  EXPECT_EQ(store->PreferenceCount("p"), 0u);
  EXPECT_TRUE(store->ReadPreferences("p", 0, 10).empty());
  hash = kNoRowsHash;
  store->AppendPreferences("p", 0, rows.first(4), hash);
  store->AppendPreferences("p", 4, rows.subspan(4), hash);
  store->SealPreferences("p", 10, hash);
  EXPECT_EQ(store->ReadPreferences("p", 0, 100).size(), 10u);
  EXPECT_EQ(store->ReadPreferences("p", 2, 1).front().margin, 0.5);
  PutPreferences(*store, "p", all);  // the same rows in one piece
}

// Datasets were once sealed with another hash of their rows: they stay what they are, and the same
// rows are known again.
TEST(PreferenceStore, ADatasetSealedWithAnOlderHashIsTheSame) {
  testing::TempFolder folder;
  const std::string path = folder.path() + "/s";
  std::vector<Prompt> prompts(3);
  for (size_t i = 0; i < 3; ++i) prompts[i].text = "p" + std::to_string(i);
  {
    const auto store = Store::Open(path, {.run_id = "r"});
    PutPreferences(*store, "hh", Pairs(20));
    store->PutPrompts("train", prompts);
  }
  {
    RocksFolder rocks;
    rocks.Open(path, {});
    rocksdb::WriteBatch batch;
    for (const auto& [key, done] :
         {std::pair("preferences/hh", "20 1234567"), std::pair("dataset/train", "3 7654321")}) {
      batch.Put(rocks.meta(), key, Seal(key, done));
    }
    rocks.Write(batch, true);
  }
  const auto store = Store::Open(path, {.run_id = "r"});
  EXPECT_NO_THROW(PutPreferences(*store, "hh", Pairs(20)));
  EXPECT_NO_THROW(store->PutPrompts("train", prompts));
  EXPECT_EQ(store->PreferenceIdentity("hh"), "20 1234567");
  uint64_t hash = kNoRowsHash;
  const auto rows = store->ReadPreferences("hh", 0, 20);
  store->AppendPreferences("hh", 0, rows, hash);
  EXPECT_NO_THROW(store->SealPreferences("hh", 20, hash));
  EXPECT_EQ(CodeOf([&] { store->SealPreferences("hh", 20, hash + 1); }), ErrorCode::kConflict);
  prompts[1].text = "other";
  EXPECT_EQ(CodeOf([&] { store->PutPrompts("train", prompts); }), ErrorCode::kConflict);
}

TEST(PreferenceStore, DamageIsNamed) {
  testing::TempFolder folder;
  {
    const auto store = Store::Open(folder.path() + "/s", {.run_id = "r"});
    PutPreferences(*store, "hh", Pairs(3));
    store->PutLogprobs("model", "sequence", std::vector<float>{-1.0f});
  }
  {
    RocksFolder rocks;
    rocks.Open(folder.path() + "/s", {});
    std::string key = "hh";
    key.push_back('\0');
    key += std::string("\0\0\0\0\0\0\0\1", 8);
    std::string value;
    {
      RocksFolder::Pinned pinned;
      ASSERT_TRUE(rocks.Get(Family::kPreferences, key, &pinned).ok());
      value = pinned.value.ToString();
    }
    value[value.size() / 2] ^= 1;
    rocksdb::WriteBatch batch;
    batch.Put(rocks.handle(Family::kPreferences), key, value);
    rocks.Write(batch, true);
  }
  const auto store = Store::Open(folder.path() + "/s", {.run_id = "r"});
  EXPECT_EQ(store->ReadPreferences("hh", 0, 1).size(), 1u);
  EXPECT_EQ(CodeOf([&] { store->ReadPreferences("hh", 0, 3); }), ErrorCode::kCorruption);
  const VerifyReport report = store->Verify();
  ASSERT_EQ(report.problems.size(), 1u);
  EXPECT_NE(report.problems[0].find("preferences hh/1"), std::string::npos) << report.problems[0];
  EXPECT_EQ(report.logprobs, 1u);
}

TEST(PreferenceStore, LogprobsKeepTheirBits) {
  testing::TempFolder folder;
  const std::vector<float> values = {-0.1f, 0.0f, -17.25f, -1e-30f};
  {
    const auto store = Store::Open(folder.path() + "/s", {.run_id = "r"});
    EXPECT_FALSE(store->GetLogprobs("m", "s"));
    store->PutLogprobs("m", "s", values, /*sync=*/true);
    store->PutLogprobs("m", "empty", {});
  }
  const auto store = Store::Open(folder.path() + "/s", {.read_only = true});
  EXPECT_EQ(store->GetLogprobs("m", "s"), values);
  EXPECT_EQ(store->GetLogprobs("m", "empty"), std::vector<float>{});
  EXPECT_FALSE(store->GetLogprobs("ms", ""));
}

}  // namespace
}  // namespace plumb::replay
