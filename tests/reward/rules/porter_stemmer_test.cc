// reward/rules/porter_stemmer.h against the stems of the reference implementation
// (tests/golden/text_metrics.py).
#include "reward/rules/porter_stemmer.h"

#include "tests/reward/rule_testing.h"

namespace plumb::reward {
namespace {

TEST(PorterStem, EqualsTheReference) {
  size_t different = 0;
  for (const auto& [word, stem] : TextMetrics().at("stems").items()) {
    EXPECT_EQ(PorterStem(word), stem.get<std::string>()) << word;
    different += word != stem.get<std::string>();
  }
  EXPECT_GT(TextMetrics().at("stems").size(), 3000u);
  EXPECT_GT(different, 1000u) << "the list has to reach the rules";
}

TEST(PorterStem, LongRunsAreLinear) {
  EXPECT_EQ(PorterStem(std::string(200000, 'y')).size(), 200000u);
  EXPECT_EQ(PorterStem(""), "");
}

}  // namespace
}  // namespace plumb::reward
