#include "kernels/update/zero_ranges.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

PLUMB_KERNEL_SUITE(ZeroRangesTest);

TEST_P(ZeroRangesTest, OnlyTheRunsAreZeroed) {
  const std::vector<ZeroRange> ranges = {{0, 1}, {3, 700}, {1000, 0}, {1001, 256}};
  std::vector<float> wanted(1300, kPoison);
  for (const ZeroRange& of : ranges) std::fill_n(wanted.begin() + of.at, of.n, 0.0f);
  Array<float> data(device(), std::vector<float>(1300, kPoison));
  Array<ZeroRange> table(device(), ranges);
  Call(launch(),
       ZeroRanges{.data = data.data(), .ranges = table.data(), .count = std::ssize(ranges)});
  ExpectSameBits(data.Host(), wanted, "runs");
  Call(launch(), ZeroRanges{.data = data.data(), .ranges = table.data(), .count = 0});
}

}  // namespace
}  // namespace plumb::kernels
