#include "kernels/dropout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace plumb::kernels {
namespace {

constexpr int64_t kRows = 64, kColumns = 131;

std::vector<float> Dropped(Dropout how, float value = 1) {
  const std::vector<float> x(static_cast<size_t>(how.rows * how.columns), value);
  std::vector<float> out(x.size(), 0);
  how.x = x.data();
  how.out = out.data();
  Call({}, how);
  return out;
}

Dropout Of(float probability, uint64_t key = 3, uint64_t layer = 64) {
  return {
      .rows = kRows, .columns = kColumns, .probability = probability, .key = key, .layer = layer};
}

TEST(DropoutTest, DropsTheShareAndKeepsTheMean) {
  for (const float p : {0.1f, 0.5f, 0.9f}) {
    double dropped = 0, sum = 0;
    for (const float v : Dropped(Of(p), 2)) {
      dropped += v == 0;
      sum += static_cast<double>(v);
      if (v != 0) {
        EXPECT_FLOAT_EQ(v, 2 / (1 - p));
      }
    }
    const double n = kRows * kColumns, deviation = std::sqrt(n * p * (1 - p));
    EXPECT_NEAR(dropped, n * p, 4 * deviation) << p;
    EXPECT_NEAR(sum, 2 * n, 4 * 2 / (1 - p) * deviation) << p;
  }
  for (const float v : Dropped(Of(0), 2)) EXPECT_EQ(v, 2);
}

TEST(DropoutTest, AMaskIsThatOfItsAddress) {
  const auto mask = Dropped(Of(0.5f));
  EXPECT_EQ(Dropped(Of(0.5f)), mask);
  EXPECT_NE(Dropped(Of(0.5f, 4)), mask);
  EXPECT_NE(Dropped(Of(0.5f, 3, 128)), mask);
  // A row's does not depend on how many there are.
  Dropout fewer = Of(0.5f);
  fewer.rows = 5;
  const auto first = Dropped(fewer);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), mask.begin()));
  EXPECT_FALSE(std::equal(mask.begin(), mask.begin() + kColumns, mask.begin() + kColumns));
}

TEST(DropoutTest, AddsAndRoundsWhereItIsAsked) {
  Dropout add = Of(0.25f);
  const auto mask = Dropped(add);
  const std::vector<float> x(mask.size(), 3);
  std::vector<float> out(mask.size(), 10);
  add.x = x.data();
  add.out = out.data();
  add.accumulate = true;
  Call({}, add);
  for (size_t i = 0; i < out.size(); ++i) EXPECT_FLOAT_EQ(out[i], 10 + 3 * mask[i]);

  std::vector<BFloat16> narrow(mask.size(), ToBFloat16(3));
  Dropout in_place = Of(0.25f);
  in_place.x = narrow.data();
  in_place.out = narrow.data();
  Call({.dtype = DType::kBFloat16}, in_place);
  for (size_t i = 0; i < narrow.size(); ++i)
    EXPECT_EQ(ToFloat(narrow[i]), mask[i] == 0 ? 0.0f : 4.0f);
}

}  // namespace
}  // namespace plumb::kernels
