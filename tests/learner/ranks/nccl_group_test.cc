// Ranks that would add up on GPUs: which calls of NCCL they make (tests/learner/ranks/stub_nccl.cc
// stands for it), how many bytes they count, and what is said where it is missing or refuses.
#include "learner/ranks/nccl_group.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <fstream>

#include "common/base/error.h"
#include "learner/ranks/partition.h"
#include "tests/learner/rank_threads.h"
#include "tests/testing/paths.h"

namespace plumb::learner {
namespace {

NcclLibrary Stub() { return OpenNccl(testing::BinaryPath("tests/libstub_nccl.so")); }

std::string LinesOf(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(NcclGroupTest, EvenSlicesAreOneCallAndOthersAGroupOfThem) {
  const plumb::testing::TempFolder folder;
  setenv("STUB_NCCL_LOG", (folder / "log").c_str(), 1);
  {
    const NcclLibrary stub = Stub();
    NcclId id{};
    stub.GetUniqueId(&id);
    NcclGroup group(stub, id, 1, 2);
    std::vector<float> values(1000);
    group.AllReduce(values.data(), 1000, nullptr);
    EXPECT_EQ(group.sent_bytes(), 4000);
    const std::array<Slice, 2> even = {Slice{0, 256}, Slice{256, 512}},
                               uneven = {Slice{0, 512}, Slice{512, 1000}};
    group.ReduceScatter(values.data(), even, nullptr);
    group.ReduceScatter(values.data(), uneven, nullptr);
    EXPECT_EQ(group.sent_bytes(), 4000 + 4 * 256 + 4 * 512);
    auto* bytes = reinterpret_cast<std::byte*>(values.data());
    group.AllGather(bytes, even, nullptr);
    group.AllGather(bytes, uneven, nullptr);
    EXPECT_EQ(group.sent_bytes(), 4000 + 4 * 256 + 4 * 512 + 256 + 488);
    const std::array<Slice, 2> nothing = {Slice{0, 0}, Slice{0, 0}};
    group.AllGather(bytes, nothing, nullptr);
  }
  unsetenv("STUB_NCCL_LOG");
  EXPECT_EQ(LinesOf(folder / "log"),
            "id 0 0\ninit 2 1\nall_reduce 1000 7\nreduce_scatter 256 7\n"
            "begin 0 0\nreduce 512 0\nreduce 488 1\nend 0 0\nall_gather 256 0\n"
            "begin 0 0\nbroadcast 512 0\nbroadcast 488 1\nend 0 0\ndestroy 0 0\n");
}

TEST(NcclGroupTest, WhatNcclRefusesIsSaid) {
  setenv("STUB_NCCL_FAILS", "all_reduce", 1);
  const NcclLibrary stub = Stub();
  NcclId id{};
  stub.GetUniqueId(&id);
  NcclGroup group(stub, id, 0, 2);
  float value = 0;
  try {
    group.AllReduce(&value, 1, nullptr);
    FAIL();
  } catch (const Error& e) {
    const std::string what = e.what();
    EXPECT_NE(what.find("ncclAllReduce of rank 0 of 2 failed: stub refuses"), std::string::npos)
        << what;
  }
  unsetenv("STUB_NCCL_FAILS");
}

TEST(NcclGroupTest, TheIdIsRankZerosOnAllRanksAndCountsAsSentWithTheMesh) {
  AsRanks(3, [](Ranks* ranks) {
    const NcclLibrary stub = Stub();
    const NcclId id = ShareNcclId(*ranks, &stub, "");
    EXPECT_EQ(std::string(id.bytes + 3, 5), "drawn");
    EXPECT_EQ(id.bytes[0], '\0');
    ranks->UseDevice(std::make_shared<NcclGroup>(stub, id, ranks->rank(), ranks->size()));
    const int64_t before = ranks->sent_bytes();
    std::vector<float> values(300);
    ranks->device()->AllReduce(values.data(), 300, nullptr);
    EXPECT_EQ(ranks->sent_bytes() - before, 2 * 300 * 4 * 2 / 3);
  });
}

TEST(NcclGroupTest, WhereOneRankHasNoNcclAllSayWhich) {
  const auto thrown = TryAsRanks(2, [](Ranks* ranks) {
    const NcclLibrary stub = Stub();
    ShareNcclId(*ranks, ranks->first() ? &stub : nullptr, "it is not here");
  });
  for (const auto& each : thrown) {
    try {
      ASSERT_TRUE(each);
      std::rethrow_exception(each);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
      EXPECT_NE(std::string(e.what()).find("rank 1: it is not here"), std::string::npos)
          << e.what();
    }
  }
}

}  // namespace
}  // namespace plumb::learner
