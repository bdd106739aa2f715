#include "policy_model/families/rope_frequencies.h"

#include <gtest/gtest.h>

#include <cmath>

namespace plumb::policy_model {
namespace {

TEST(RopeFrequencies, DefaultAndLinear) {
  const RotarySpec plain = RotaryOf({}, 10000, 4, 64);
  ASSERT_EQ(plain.frequencies.size(), 2u);
  EXPECT_DOUBLE_EQ(plain.frequencies[0], 1);
  EXPECT_DOUBLE_EQ(plain.frequencies[1], 0.01);
  EXPECT_EQ(plain.factor, 1);
  EXPECT_DOUBLE_EQ(RotaryOf({.kind = RopeKind::kLinear, .factor = 4}, 10000, 4, 64).frequencies[1],
                   0.0025);
  EXPECT_DOUBLE_EQ(RotaryOf({.kind = RopeKind::kDynamic, .factor = 4}, 10000, 4, 64).frequencies[1],
                   0.01);
}

// Short waves stay, long ones are stretched by the factor, between them is a mix.
TEST(RopeFrequencies, Llama3StretchesLongWavesOnly) {
  const RopeScaling s{.kind = RopeKind::kLlama3,
                      .factor = 8,
                      .original_positions = 8192,
                      .low_freq = 1,
                      .high_freq = 4};
  const RotarySpec plain = RotaryOf({}, 500000, 128, 131072),
                   made = RotaryOf(s, 500000, 128, 131072);
  for (size_t i = 0; i < 64; ++i) {
    const double wave = 2 * M_PI / plain.frequencies[i],
                 ratio = plain.frequencies[i] / made.frequencies[i];
    if (wave < 8192 / 4.0) EXPECT_DOUBLE_EQ(ratio, 1);
    else if (wave > 8192) EXPECT_NEAR(ratio, 8, 1e-12);
    else EXPECT_TRUE(ratio > 1 && ratio < 8) << i;
  }
}

TEST(RopeFrequencies, YarnScalesCosinesAndSines) {
  const RopeScaling s{.kind = RopeKind::kYarn, .factor = 4, .original_positions = 32768};
  const RotarySpec plain = RotaryOf({}, 1e6, 128, 131072), made = RotaryOf(s, 1e6, 128, 131072);
  EXPECT_DOUBLE_EQ(made.frequencies[0], plain.frequencies[0]);
  EXPECT_NEAR(made.frequencies[63] * 4, plain.frequencies[63], 1e-20);
  EXPECT_DOUBLE_EQ(made.factor, 0.1 * std::log(4.0) + 1);
  RopeScaling given = s;
  given.attention_factor = 1.25;
  EXPECT_EQ(RotaryOf(given, 1e6, 128, 131072).factor, 1.25);
  RopeScaling both = s;
  both.mscale = both.mscale_all_dim = 1;
  EXPECT_DOUBLE_EQ(RotaryOf(both, 1e6, 128, 131072).factor, 1);
}

TEST(RopeFrequencies, LongRopeDividesByTheListForItsLength) {
  const RopeScaling s{.kind = RopeKind::kLongRope,
                      .factor = 0,
                      .original_positions = 64,
                      .short_factor = {1, 2},
                      .long_factor = {4, 8},
                      .stretched_positions = 256};
  const RotarySpec within = RotaryOf(s, 10000, 4, 64), beyond = RotaryOf(s, 10000, 4, 256);
  EXPECT_DOUBLE_EQ(within.frequencies[1], 0.01 / 2);
  EXPECT_DOUBLE_EQ(beyond.frequencies[1], 0.01 / 8);
  EXPECT_DOUBLE_EQ(beyond.frequencies[0], 0.25);
  EXPECT_DOUBLE_EQ(within.factor, std::sqrt(1 + std::log(4.0) / std::log(64.0)));
  RopeScaling given = s;
  given.attention_factor = 1.5;
  EXPECT_EQ(RotaryOf(given, 10000, 4, 64).factor, 1.5);
}

}  // namespace
}  // namespace plumb::policy_model
