#include "replay/store/logprob_cache.h"

#include <gtest/gtest.h>

#include "tests/testing/temp_folder.h"

namespace plumb::replay {
namespace {

TEST(LogprobCache, ASecondRunFindsWhatTheFirstComputed) {
  testing::TempFolder folder;
  const std::vector<int32_t> tokens = {1, 2, 3};
  const std::vector<uint8_t> mask = {0, 1, 1};
  const Digest sequence = SequenceDigest(tokens, mask);
  const std::vector<float> values = {-0.5f, -2.0f};
  {
    const auto store = Store::Open(folder / "s", {.run_id = "r"});
    StoreLogprobCache cache(store.get());
    EXPECT_FALSE(cache.Get("model", sequence));
    cache.Put("model", sequence, values);
    EXPECT_EQ(cache.Get("model", sequence), values);
    EXPECT_EQ(cache.misses(), 1);
    EXPECT_EQ(cache.hits(), 1);
  }
  const auto store = Store::Open(folder / "s");
  StoreLogprobCache cache(store.get());
  EXPECT_EQ(cache.Get("model", sequence), values);
  EXPECT_FALSE(cache.Get("another model", sequence));
  EXPECT_EQ(cache.misses(), 1);
}

TEST(LogprobCache, TheDigestKnowsTokensMaskAndLength) {
  const std::vector<int32_t> tokens = {1, 2, 3}, other = {1, 2, 4}, shorter = {1, 2};
  const std::vector<uint8_t> mask = {0, 1, 1}, less = {0, 0, 1}, two = {0, 1};
  const Digest digest = SequenceDigest(tokens, mask);
  EXPECT_EQ(digest.size(), 64u);
  // any value but 0 is scored
  EXPECT_EQ(digest, SequenceDigest(tokens, std::vector<uint8_t>{0, 1, 255}));
  EXPECT_NE(digest, SequenceDigest(other, mask));
  EXPECT_NE(digest, SequenceDigest(tokens, less));
  EXPECT_NE(digest, SequenceDigest(shorter, two));
}

}  // namespace
}  // namespace plumb::replay
