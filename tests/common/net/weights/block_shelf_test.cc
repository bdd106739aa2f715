#include "common/net/weights/block_shelf.h"

#include <gtest/gtest.h>

#include <thread>

#include "common/base/error.h"
#include "common/net/weights/block_change.h"

namespace plumb {
namespace {

using std::chrono::milliseconds;
using weight_wire::BlocksQuestion;

std::string Block(char fill, size_t bytes = kDigestBlockBytes) { return std::string(bytes, fill); }

// A set of two blocks and a half, all of it.
void PutAll(BlockShelf& shelf, const Digest& set, char fill, const Digest& base = "") {
  const uint64_t bytes = 2 * kDigestBlockBytes + kDigestBlockBytes / 2;
  shelf.Begin("base", set, bytes, base);
  for (size_t i = 0; i < 3; ++i) {
    shelf.Put(set, i, Payload(Block(fill, i < 2 ? kDigestBlockBytes : kDigestBlockBytes / 2)),
              base.empty() ? Payload() : Payload(SameBlock()));
  }
}

std::vector<Payload> Ask(BlockShelf& shelf, const BlocksQuestion& question,
                         milliseconds wait = milliseconds(0)) {
  return weight_wire::DecodeBlocks(Payload(shelf.Answer(question, After(wait))));
}

BlocksQuestion Of(const Digest& set, uint64_t first, uint32_t most = 8, bool more = false) {
  return {
      .who = "a", .version = 1, .set = set, .base = {}, .first = first, .most = most, .more = more};
}

ErrorCode CodeOf(BlockShelf& shelf, const BlocksQuestion& question) {
  try {
    Ask(shelf, question);
  } catch (const Error& e) {
    return e.code();
  }
  return ErrorCode::kIo;
}

TEST(BlockShelfTest, GivesWhatIsThereAndWhatHasChanged) {
  BlockShelf shelf;
  shelf.Open(1, {});
  PutAll(shelf, "v1", 'a', "v0");
  shelf.Close();
  auto blocks = Ask(shelf, Of("v1", 0));
  ASSERT_EQ(blocks.size(), 3u);
  EXPECT_EQ(WholeBlock(blocks[2]), Block('a', kDigestBlockBytes / 2));
  EXPECT_EQ(Ask(shelf, Of("v1", 1, 1)).size(), 1u);
  const int64_t whole = shelf.counters()["weight_bytes"];
  BlocksQuestion of_base = Of("v1", 0);
  of_base.base = "v0";
  blocks = Ask(shelf, of_base);
  ASSERT_EQ(blocks.size(), 3u);
  EXPECT_EQ(blocks[0].view(), SameBlock());
  EXPECT_EQ(shelf.counters()["weight_bytes"] - whole, 6);
  EXPECT_EQ(shelf.counters()["weight_bytes_saved"], 5 * (1 << 19) - 6);
  of_base.base = "another";
  EXPECT_EQ(WholeBlock(Ask(shelf, of_base)[0]).size(), kDigestBlockBytes);
  EXPECT_EQ(CodeOf(shelf, Of("v1", 3)), ErrorCode::kCorruption);
  EXPECT_EQ(CodeOf(shelf, Of("none", 0)), ErrorCode::kNotFound);
}

TEST(BlockShelfTest, OneAnswerIsBounded) {
  BlockShelf shelf({.answer_bytes = kDigestBlockBytes + 1});
  shelf.Open(1, {});
  PutAll(shelf, "v1", 'a');
  EXPECT_EQ(Ask(shelf, Of("v1", 0)).size(), 2u);
}

// What is on its way is waited for, block by block; what is not, is not.
TEST(BlockShelfTest, WhoAsksTooEarlyWaits) {
  BlockShelf shelf;
  EXPECT_TRUE(Ask(shelf, Of("v1", 0)).empty()) << "version 1 may come";
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(30));
    shelf.Open(1, {});
    shelf.Begin("base", "v1", 2 * kDigestBlockBytes, "");
    std::this_thread::sleep_for(milliseconds(30));
    shelf.Put("v1", 0, Payload(Block('x')), {});
  });
  EXPECT_EQ(Ask(shelf, Of("v1", 0), milliseconds(20'000)).size(), 1u) << "the first block alone";
  later.join();
  EXPECT_TRUE(Ask(shelf, Of("v1", 1)).empty());
  EXPECT_TRUE(Ask(shelf, Of("other", 0)).empty()) << "more of version 1 may come";
  shelf.Close();
  EXPECT_EQ(CodeOf(shelf, Of("other", 0)), ErrorCode::kNotFound);
}

// An older version stays for who is in the middle of it, until that has it, and one only.
TEST(BlockShelfTest, WhoIsInTheMiddleGetsToTheEnd) {
  BlockShelf shelf;
  shelf.Open(1, {});
  PutAll(shelf, "v1", 'a');
  shelf.Close();
  EXPECT_EQ(Ask(shelf, Of("v1", 0, 1)).size(), 1u);  // and then it wants no more: it has all
  EXPECT_EQ(Ask(shelf, Of("v1", 0, 1, true)).size(), 1u);
  BlocksQuestion second{
      .who = "b", .version = 2, .set = "v2", .base = {}, .first = 0, .most = 1, .more = true};
  shelf.Open(2, {});
  PutAll(shelf, "v2", 'b');
  shelf.Close();
  EXPECT_EQ(Ask(shelf, second).size(), 1u);
  shelf.Open(3, {});
  PutAll(shelf, "v3", 'c');
  shelf.Close();
  EXPECT_EQ(CodeOf(shelf, second), ErrorCode::kNotFound) << "two older ones are not kept";
  EXPECT_EQ(WholeBlock(Ask(shelf, Of("v1", 1, 1, true))[0])[0], 'a');
  EXPECT_EQ(Ask(shelf, Of("v1", 2)).size(), 1u) << "the last that it wants";
  EXPECT_EQ(CodeOf(shelf, Of("v1", 0)), ErrorCode::kNotFound);
}

TEST(BlockShelfTest, WhoHasGoneHoldsNothing) {
  BlockShelf shelf({.gone_after = milliseconds(20)});
  shelf.Open(1, {});
  PutAll(shelf, "v1", 'a');
  PutAll(shelf, "frozen", 'f');
  EXPECT_EQ(Ask(shelf, Of("v1", 0, 1, true)).size(), 1u);
  const Digest kept = "frozen";
  shelf.Open(2, std::span(&kept, 1));
  std::this_thread::sleep_for(milliseconds(40));
  EXPECT_EQ(CodeOf(shelf, Of("v1", 1)), ErrorCode::kNotFound);
  EXPECT_EQ(Ask(shelf, Of("frozen", 0)).size(), 3u) << "a set of the newest version, too";
}

}  // namespace
}  // namespace plumb
