#include "common/net/weight_wire.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"

namespace plumb::weight_wire {
namespace {

const PolicyVersion kVersion{12, "abc123"};
const WeightOffer kOffer{kVersion, {{"base", "d0", uint64_t{5} << 32}, {"lora", "d1", 64}}};

TEST(WeightWire, RoundTrips) {
  for (const PolicyVersion& version :
       {kVersion, PolicyVersion{}, PolicyVersion{int64_t{1} << 40, ""}}) {
    EXPECT_EQ(DecodeVersion(EncodeVersion(version)), version);
  }
  EXPECT_EQ(DecodeOffer(EncodeOffer(kOffer)), kOffer);
}

TEST(WeightWire, EveryTruncationIsRefused) {
  const std::string bytes = EncodeVersion(kVersion);
  for (size_t n = 0; n < bytes.size(); ++n)
    EXPECT_THROW(DecodeVersion(std::string_view(bytes).substr(0, n)), Error) << n;
  EXPECT_THROW(DecodeVersion(bytes + "x"), Error);
  const std::string offer = EncodeOffer(kOffer);
  for (size_t n = 0; n < offer.size(); ++n)
    EXPECT_THROW(DecodeOffer(std::string_view(offer).substr(0, n)), Error) << n;
  EXPECT_THROW(DecodeOffer(offer + "x"), Error);
}

TEST(WeightWire, LyingHeadersAreRefused) {
  std::string bytes = EncodeVersion(kVersion);
  bytes[8] = 100;  // more of a digest than there is
  EXPECT_THROW(DecodeVersion(bytes), Error);
  bytes[11] = static_cast<char>(0xff);  // four gigabytes of it
  EXPECT_THROW(DecodeVersion(bytes), Error);
  EXPECT_THROW(DecodeVersion(EncodeVersion({-5, "x"})), Error);
  EXPECT_THROW(DecodeVersion(EncodeVersion({-2, ""})), Error);
  EXPECT_THROW(DecodeVersion(EncodeVersion({-1, "x"})), Error);
  EXPECT_THROW(DecodeVersion(EncodeVersion({1, std::string(129, 'a')})), Error);

  const std::vector<OfferedSet> one = {{"base", "d0", 1}};
  std::string offer = EncodeOffer({kVersion, one});
  // four thousand million sets
  std::memset(offer.data() + 8 + 4 + kVersion.digest.size(), 0xff, 4);
  EXPECT_THROW(DecodeOffer(offer), Error);
  EXPECT_THROW(DecodeOffer(EncodeOffer({{-5, "x"}, one})), Error);
  EXPECT_THROW(DecodeOffer(EncodeOffer({{}, one})), Error);
  EXPECT_THROW(DecodeOffer(EncodeOffer({kVersion, {}})), Error);
  EXPECT_THROW(DecodeOffer(EncodeOffer({kVersion, std::vector(kMaxSets + 1, one[0])})), Error);
  EXPECT_THROW(DecodeOffer(EncodeOffer({kVersion, {{std::string(129, 'a'), "d", 1}}})), Error);
  EXPECT_THROW(DecodeOffer(EncodeOffer({kVersion, {{"base", std::string(129, 'a'), 1}}})), Error);
}

const BlocksQuestion kQuestion{.who = "actor-0",
                               .version = 3,
                               .set = "d1",
                               .base = "d0",
                               .first = uint64_t{1} << 40,
                               .most = 8,
                               .more = 1};

TEST(WeightWire, QuestionsForBlocksComeBackAsTheyWere) {
  const std::string bytes = EncodeBlocksQuestion(kQuestion);
  const BlocksQuestion back = DecodeBlocksQuestion(bytes);
  EXPECT_EQ(back.who, "actor-0");
  EXPECT_EQ(back.base, "d0");
  EXPECT_EQ(back.first, uint64_t{1} << 40);
  EXPECT_EQ(back.more, 1);
  EXPECT_EQ(EncodeBlocksQuestion(back), bytes);
  for (size_t n = 0; n < bytes.size(); ++n)
    EXPECT_THROW(DecodeBlocksQuestion(std::string_view(bytes).substr(0, n)), Error) << n;
  for (const auto& spoil :
       {+[](BlocksQuestion& q) { q.most = 0; }, +[](BlocksQuestion& q) { q.most = kMaxBlocks + 1; },
        +[](BlocksQuestion& q) { q.version = -1; },
        +[](BlocksQuestion& q) { q.who = std::string(129, 'a'); }}) {
    BlocksQuestion question = kQuestion;
    spoil(question);
    EXPECT_THROW(DecodeBlocksQuestion(EncodeBlocksQuestion(question)), Error);
  }
}

TEST(WeightWire, BlocksAreCutWhereTheyEnd) {
  const std::vector<BlockOnWire> blocks = {{Payload(std::string("abc")), /*raw=*/true},
                                           {Payload(std::string("\1\0", 2)), /*raw=*/false}};
  const std::string bytes = EncodeBlocks(blocks);
  const auto back = DecodeBlocks(Payload(bytes));
  ASSERT_EQ(back.size(), 2u);
  EXPECT_EQ(back[0].view(), std::string_view("\0abc", 4));
  EXPECT_EQ(back[1].view(), std::string_view("\1\0", 2));
  EXPECT_TRUE(DecodeBlocks(Payload(EncodeBlocks({}))).empty());
  for (size_t n = 0; n < bytes.size(); ++n)
    EXPECT_THROW(DecodeBlocks(Payload(bytes.substr(0, n))), Error) << n;
  EXPECT_THROW(DecodeBlocks(Payload(bytes + "x")), Error);
  EXPECT_THROW(DecodeBlocks(Payload(std::string(4, '\xff'))), Error);
}

TEST(WeightWire, LeavesAreThoseOfTheirDigest) {
  const std::vector<std::byte> set(kDigestBlockBytes + 5, std::byte{7});
  const auto leaves = HashBlocks(set);
  const std::string bytes = EncodeLeaves(leaves);
  EXPECT_EQ(DecodeLeaves(bytes, WeightDigest(set), set.size()), leaves);
  EXPECT_THROW(DecodeLeaves(bytes, "another", set.size()), Error);
  EXPECT_THROW(DecodeLeaves(bytes, WeightDigest(set), set.size() + 1), Error);
  EXPECT_THROW(DecodeLeaves(bytes, WeightDigest(set), uint64_t{1} << 60), Error);
  EXPECT_THROW(DecodeLeaves(bytes.substr(1), WeightDigest(set), set.size()), Error);
}

}  // namespace
}  // namespace plumb::weight_wire
