// reward/rules/rule.h: options and files of a rule.
#include "reward/rules/rule.h"

#include "tests/reward/rule_testing.h"
#include "tests/testing/temp_folder.h"

namespace plumb::reward {
namespace {

TEST(RuleOptions, ReadAndRefuse) {
  const auto part = TestPart("k", "", {"a=1", "a=2", "b=x=y", "list= p,,q ", "n=2.5"});
  const RuleOptions options(part, {"a", "b", "list", "n"});
  EXPECT_EQ(options.Text("a"), "2");
  EXPECT_EQ(options.Texts("a"), (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(options.Text("b"), "x=y");
  EXPECT_EQ(options.Text("none", "else"), "else");
  EXPECT_EQ(options.List("list"), (std::vector<std::string>{"p", "q"}));
  EXPECT_EQ(options.Number("n", 0, 0, 3), 2.5);
  EXPECT_EQ(options.Integer("a", 0, 0, 3), 2);
  EXPECT_TRUE(options.Flag("none", true));
  EXPECT_THROW(options.Number("n", 0, 0, 2), Error);
  EXPECT_THROW(options.Integer("n", 0, 0, 3), Error);
  EXPECT_THROW(options.Number("b", 0, 0, 3), Error);
  EXPECT_THROW(options.Flag("a"), Error);
  EXPECT_THROW(options.Choice("a", {"x", "y"}), Error);
  EXPECT_THROW(RuleOptions(part, {"a"}), Error);
}

TEST(ReadRuleFile, BoundedAndNamed) {
  const testing::TempFolder folder;
  std::ofstream(folder.path() + "/a") << "text";
  EXPECT_EQ(ReadRuleFile(TestPart("k"), folder.path() + "/a"), "text");
  EXPECT_THROW(ReadRuleFile(TestPart("k"), folder.path() + "/b"), Error);
  std::ofstream(folder.path() + "/big") << std::string((16u << 20) + 1, 'x');
  EXPECT_THROW(ReadRuleFile(TestPart("k"), folder.path() + "/big"), Error);
}

}  // namespace
}  // namespace plumb::reward
