#include "kernels/block_hash.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

PLUMB_KERNEL_SUITE(BlockHashTest);

TEST_P(BlockHashTest, LeavesAreThoseOfTheDigest) {
  const auto block = static_cast<int64_t>(kDigestBlockBytes);
  for (const int64_t size : {int64_t{248}, int64_t{1024}, int64_t{1032}, int64_t{4096}, block - 8,
                             block, block + 1024, 3 * block + 70000}) {
    RandomStream random(5, static_cast<uint64_t>(size));
    std::vector<uint32_t> words(static_cast<size_t>(size / 4));
    for (uint32_t& w : words) w = static_cast<uint32_t>(random.NextBelow(0xFFFFFFFFu));
    Array<uint32_t> data(device(), words);
    const auto blocks = static_cast<size_t>((size + block - 1) / block);
    Array<BlockHash> out(device(), blocks);
    Call(launch(), HashWeightBlocks{.bytes = data.data(), .size = size, .out = out.data()});
    const auto want = HashBlocks(std::as_bytes(std::span<const uint32_t>(words)));
    ASSERT_EQ(want.size(), blocks);
    const auto got = out.Host();
    for (size_t b = 0; b < blocks; ++b)
      EXPECT_EQ(got[b], want[b]) << "block " << b << " of " << size << " bytes";
  }
}

TEST_P(BlockHashTest, FindsTheFirstValueThatIsNotFinite) {
  for (const size_t n : {size_t{1}, size_t{777}, size_t{100000}}) {
    auto values = Normal(n, n, dtype());
    Array<uint64_t> first(device(), 1);
    const auto find = [&] {
      Tensor x(GetParam(), values);
      Call(launch(),
           FindNonFinite{.x = x.data(), .n = static_cast<int64_t>(n), .first = first.data()});
      return first.Host()[0];
    };
    EXPECT_EQ(find(), n);
    values[n - 1] = -INFINITY;
    EXPECT_EQ(find(), n - 1);
    values[n / 2] = NAN;
    EXPECT_EQ(find(), n / 2);
    values[n / 2] = 3e38f;
    EXPECT_EQ(find(), n / 2 == n - 1 ? n : n - 1) << "large is finite";
  }
}

}  // namespace
}  // namespace plumb::kernels
