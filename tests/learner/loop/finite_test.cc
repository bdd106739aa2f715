#include "learner/loop/finite.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <vector>

#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

TEST(FiniteTest, NamesTheTensorWhateverItsTypeAndPlace) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    policy_model::Weights weights(TinyShape(), Device::kCpu, dtype);
    weights.Initialise(3, 0.1);
    const policy_model::TensorTable& table = weights.table();
    std::vector<std::byte> bytes(weights.flat().bytes());
    weights.flat().CopyToHost(bytes);
    EXPECT_EQ(FirstNonFinite(table, dtype, bytes), std::nullopt);
    const size_t size = ElementSize(dtype);
    // The largest and the smallest numbers are finite.
    for (const uint16_t high : {uint16_t{0x7F7F}, uint16_t{0xFF7F}, uint16_t{0x0001}}) {
      auto extreme = bytes;
      std::memcpy(extreme.data() + size - 2, &high, 2);
      EXPECT_EQ(FirstNonFinite(table, dtype, extreme), std::nullopt) << high;
    }
    for (const policy_model::TensorEntry& e : table.entries()) {
      for (const int64_t at : {e.offset, e.offset + e.elements - 1}) {
        // infinity, -infinity, NaN
        for (const uint16_t high : {uint16_t{0x7F80}, uint16_t{0xFF80}, uint16_t{0x7FC0}}) {
          auto spoiled = bytes;
          std::memcpy(spoiled.data() + static_cast<size_t>(at) * size + size - 2, &high, 2);
          EXPECT_EQ(FirstNonFinite(table, dtype, spoiled), e.name);
        }
      }
    }
  }
}

}  // namespace
}  // namespace plumb::learner
