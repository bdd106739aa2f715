#include "actor/stop_rule.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/base/rng.h"

namespace plumb::actor {
namespace {

TEST(StopStrings, FoundAcrossTokensAndInsideOne) {
  StopStrings stop({"</answer>", "\n\n"}, 2);
  EXPECT_FALSE(stop.Append(0, "x</ans"));
  EXPECT_FALSE(stop.Append(1, "wer>"));  // another slot's tail
  EXPECT_TRUE(stop.Append(0, "wer> and more"));
  stop.Reset(0);
  EXPECT_FALSE(stop.Append(0, "wer>"));
  EXPECT_TRUE(stop.Append(0, "a\n\nb"));
}

TEST(StopStrings, NothingWithoutStrings) {
  StopStrings stop({}, 1);
  EXPECT_FALSE(stop.active());
  EXPECT_FALSE(stop.Append(0, "anything"));
}

TEST(StopStrings, RefusesAnEmptyString) { EXPECT_THROW(StopStrings({"a", ""}, 1), Error); }

// However a text is cut into tokens, the rule fires at the first token within which an occurrence
// ends.
TEST(StopStrings, AgreesWithSearchingTheWholeText) {
  const std::vector<std::string> strings = {"aba", "bb", "abcab"};
  RandomStream random(7, 0);
  int fired = 0;
  for (int round = 0; round < 2000; ++round) {
    StopStrings stop(strings, 1);
    std::string text;
    for (int t = 0; t < 12; ++t) {
      std::string token;
      for (uint32_t n = random.NextBelow(4); n > 0; --n)
        token += static_cast<char>('a' + random.NextBelow(3));
      const bool got = stop.Append(0, token);
      text += token;
      bool expected = false;
      for (const std::string& s : strings) expected |= text.find(s) != std::string::npos;
      ASSERT_EQ(got, expected) << text;
      fired += got;
      if (got) break;
    }
  }
  EXPECT_GT(fired, 1000);
}

}  // namespace
}  // namespace plumb::actor
