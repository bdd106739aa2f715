#include "run/commands/checked_numbers.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/run/cli_runner.h"

namespace plumb::run {
namespace {

using testing::CliOutput;
using testing::Has;
using testing::RunPlumb;

// Refused with a sentence, whatever CLI11 would make of it.
TEST(CheckedNumbersTest, WhatAnOptionDoesNotTakeIsRefusedWithItsRange) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--top-k", "-5"}, "--top-k: is -5: it takes a whole number from 0 to 2147483647\n"},
      {{"--top-k", "99999999999999999999"}, "--top-k: is 99999999999999999999: it takes"},
      {{"--seed", "-1"}, "--seed: is -1: it takes a whole number from 0, of 64 bits\n"},
      {{"--seed", "99999999999999999999"}, "--seed: is 99999999999999999999"},
      {{"--seed", "5x"}, "--seed: is 5x: it takes a whole number"},
      {{"--threads", "100000"}, "--threads: is 100000: it takes a whole number from 0 to 1024\n"},
      {{"--temperature", "nan"}, "--temperature: is nan: it takes a number from 0 to 100\n"},
      {{"--top-p", "inf"}, "--top-p: is inf: it takes a number from 0 to 1\n"},
      {{"--samples", "0"}, "--samples: is 0: it takes a whole number from 1 to 4096\n"},
      {{"--greedy=3"}, "--greedy takes no value\n"}};
  for (const auto& [option, piece] : cases) {
    std::vector<std::string> line = {"generate", "x", "--prompt", "1"};
    line.insert(line.end(), option.begin(), option.end());
    const CliOutput output = RunPlumb(line);
    EXPECT_EQ(output.code, 2) << piece;
    EXPECT_TRUE(Has(output.err, piece)) << output.err << "\nmisses " << piece;
  }
  EXPECT_TRUE(WholeNumber(0, std::numeric_limits<uint64_t>::max())("18446744073709551615").empty());
  EXPECT_TRUE(WholeNumber(-3, 3)("-3").empty());
  EXPECT_FALSE(WholeNumber(-3, 3)("-4").empty());
  EXPECT_TRUE(NumberAbove(0)("0.1").empty());
  EXPECT_FALSE(NumberAbove(0)("0").empty());
}

TEST(CheckedNumbersTest, AMisspeltWordIsToldTheNearest) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"eval", "x", "y", "--fallback", "lastnumber"},
       "--fallback: is 'lastnumber', did you mean 'last_number'? It takes none | last_number\n"},
      {{"convert", "x", "y", "--dtype", "bfloat"},
       "--dtype: is 'bfloat', did you mean 'bfloat16'? It takes bfloat16 | float32\n"},
      {{"completion", "powershell"}, "SHELL: is 'powershell': it takes bash | zsh\n"}};
  for (const auto& [line, piece] : cases) {
    const CliOutput output = RunPlumb(line);
    EXPECT_EQ(output.code, 2) << piece;
    EXPECT_TRUE(Has(output.err, piece)) << output.err << "\nmisses " << piece;
  }
  EXPECT_TRUE(OneOf({"a", "b"})("b").empty());
  EXPECT_FALSE(OneOf({"a", "b"})("").empty());
}

}  // namespace
}  // namespace plumb::run
