// policy_model/memory/weight_arrival.h: what arrives in pieces is what was sent, and its digest
// that of the whole.
#include "policy_model/memory/weight_arrival.h"

#include <gtest/gtest.h>

#include <cstring>

namespace plumb::policy_model {
namespace {

TEST(WeightArrivalTest, TheDigestIsOfWhatIsThere) {
  // A piece, several of them, and a last block that is not whole.
  for (const size_t bytes : {size_t{4096}, (size_t{33} << 20) + 4096, size_t{70} << 20}) {
    kernels::LentMemory lent(Device::kCpu, bytes);
    for (size_t i = 0; i < bytes; i += 997) lent.data()[i] = static_cast<std::byte>(i >> 4 | 1);
    const std::span<const std::byte> whole(lent.data(), bytes);
    const Digest expected = WeightDigest(whole);
    WeightArrival arrival(Device::kCpu);
    std::vector<std::byte> into(bytes);
    EXPECT_EQ(
        arrival.Take(kernels::BorrowedMemory(lent.handle(), Device::kCpu), into.data(), bytes),
        expected);
    EXPECT_EQ(std::memcmp(into.data(), lent.data(), bytes), 0);
    std::vector<std::byte> again(bytes);
    EXPECT_EQ(arrival.Take(whole, again.data()), expected);
    EXPECT_EQ(again, into);
  }
}

}  // namespace
}  // namespace plumb::policy_model
