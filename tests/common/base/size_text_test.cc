#include "common/base/size_text.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <regex>

#include "common/base/file.h"
#include "tests/testing/paths.h"

namespace plumb {
namespace {

TEST(SizeTextTest, WhatIsMeasuredIsInPowersOfAThousand) {
  EXPECT_EQ(SizeText(1'614'000'000), "1.6 GB");
  EXPECT_EQ(SizeText(990'000'000), "1.0 GB");
  EXPECT_EQ(SizeText(538'000'000), "538 MB");
  EXPECT_EQ(SizeText(3'200'000), "3 MB");
  EXPECT_EQ(SizeText(12'345), "12 kB");
  EXPECT_EQ(SizeText(7), "7 bytes");
  EXPECT_EQ(SizeText(740'000'000'000), "740 GB");
}

TEST(SizeTextTest, ALimitIsInPowersOf1024) {
  EXPECT_EQ(LimitText(int64_t{2} << 30), "2 GiB");
  EXPECT_EQ(LimitText(int64_t{96} << 20), "96 MiB");
  EXPECT_EQ(LimitText(1536), "1.5 KiB");
  EXPECT_EQ(LimitText(1000), "1000 bytes");
}

// Nobody formats a size by hand beside this file.
TEST(SizeTextTest, NobodyElseWritesUnitsOfTheirOwn) {
  namespace fs = std::filesystem;
  const std::regex by_hand(
      R"re((%[.0-9a-z]*f|%l*d) ?([KMGT]i?B|kB)|>> (10|20|30)\) *\+ *" ?[KMG]i?B)re");
  for (const char* room : {"common", "configs", "kernels", "policy_model", "actor", "reward",
                           "replay", "learner", "run"}) {
    for (const auto& entry : fs::recursive_directory_iterator(testing::SourcePath(room))) {
      const std::string path = entry.path();
      if (entry.path().extension() != ".cc" || path.ends_with("/size_text.cc")) continue;
      const std::string text = RealFileSystem().ReadFile(path, size_t{1} << 24);
      std::smatch found;
      EXPECT_FALSE(std::regex_search(text, found, by_hand)) << path << ": " << found.str();
    }
  }
}

}  // namespace
}  // namespace plumb
