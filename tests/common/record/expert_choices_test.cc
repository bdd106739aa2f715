// common/record/expert_choices.h
#include "common/record/expert_choices.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "common/base/error.h"

namespace plumb {
namespace {

TEST(ExpertChoices, NumbersComeBackAndTakeTheBitsTheyNeed) {
  std::mt19937 random(3);
  for (const ExpertForm form : {ExpertForm{48, 8, 128}, ExpertForm{1, 1, 1}, ExpertForm{3, 2, 6},
                                ExpertForm{5, 3, 1024}, ExpertForm{2, 4, 257}}) {
    const size_t bits = static_cast<size_t>(form.layers) * static_cast<size_t>(form.per_token) *
                        static_cast<size_t>(form.bits());
    EXPECT_EQ(form.bytes(), (bits + 7) / 8);
    std::vector<std::vector<int32_t>> tokens;
    ExpertChoices choices{form, {}};
    for (int t = 0; t < 20; ++t) {
      std::vector<int32_t> numbers;
      for (int32_t layer = 0; layer < form.layers; ++layer) {
        std::vector<int32_t> all;
        for (int32_t e = 0; e < form.experts; ++e) all.push_back(e);
        std::shuffle(all.begin(), all.end(), random);
        std::sort(all.begin(), all.begin() + form.per_token);
        numbers.insert(numbers.end(), all.begin(), all.begin() + form.per_token);
      }
      AppendExperts(form, numbers, choices.bytes);
      tokens.push_back(std::move(numbers));
    }
    EXPECT_EQ(choices.bytes.size(), 20 * form.bytes());
    EXPECT_EQ(choices.tokens(), 20u);
    CheckExperts(form, choices.bytes);
    for (size_t t = 0; t < tokens.size(); ++t) {
      std::vector<int32_t> back(form.numbers());
      UnpackExperts(form, choices.of(t), back);
      EXPECT_EQ(back, tokens[t]);
    }
  }
  EXPECT_EQ((ExpertForm{48, 8, 128}).bytes(), 336u) << "what the header says of Qwen3-30B-A3B";
}

TEST(ExpertChoices, WhatNoRouterCanHaveChosenIsRefused) {
  const ExpertForm form = {2, 2, 5};  // 12 bits in two bytes
  std::vector<uint8_t> bytes;
  AppendExperts(form, std::vector<int32_t>{0, 4, 1, 2}, bytes);
  CheckExperts(form, bytes);
  const auto refuses = [](const ExpertForm& f, std::vector<uint8_t> b, const std::string& says) {
    try {
      CheckExperts(f, b);
      ADD_FAILURE() << "accepted: " << says;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCorruption);
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
    }
  };
  refuses(form, {bytes[0]}, "no whole number of tokens");
  refuses(form, {uint8_t(bytes[0] + 1), bytes[1], 0}, "no whole number of tokens");
  std::vector<uint8_t> equal, high;
  AppendExperts(form, std::vector<int32_t>{3, 3, 1, 2}, equal);
  refuses(form, equal, "expert 3 behind 3");
  AppendExperts(form, std::vector<int32_t>{0, 1, 2, 7}, high);
  refuses(form, high, "expert 7");
  refuses(form, {bytes[0], uint8_t(bytes[1] | 0x80)}, "bits to spare");
  for (const ExpertForm bad : {ExpertForm{0, 1, 1}, ExpertForm{1, 0, 4}, ExpertForm{1, 5, 4},
                               ExpertForm{1, 1, 5000}, ExpertForm{-1, 2, 3}})
    refuses(bad, {}, "experts in");
}

}  // namespace
}  // namespace plumb
