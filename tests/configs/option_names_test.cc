// configs/option_names.h: which options a name may mean.
#include "configs/option_names.h"

#include <gtest/gtest.h>

#include <set>

#include "common/base/file.h"
#include "tests/testing/paths.h"

namespace plumb::configs {
namespace {

TEST(OptionNamesTest, ANameOrAnotherSystemsNameLeadsToItsOptions) {
  ASSERT_FALSE(OptionsNamed("lr").empty());
  EXPECT_EQ(OptionsNamed("lr").front(), "optimizer.learning_rate");
  EXPECT_EQ(OptionsNamed("lr"), OptionsNamed("learning_rate"));
  EXPECT_EQ(OptionsNamed("num_generations"),
            std::vector<std::string>{"rollout.samples_per_prompt"});
  EXPECT_TRUE(OptionsNamed("nothing_like_it").empty());
}

// What docs/trl.md tells people to write is there, and a name of TRL in it leads there.
TEST(OptionNamesTest, ThePageForPeopleOfTrlNamesOptionsThatThereAre) {
  Index index;
  Config().Visit(index);
  std::set<std::string> options, sections;
  for (const auto& [name, place] : index.places) {
    options.insert(place);
    sections.insert(place.substr(0, place.find('.')));
  }
  const std::string page =
      RealFileSystem().ReadFile(plumb::testing::SourcePath("docs/trl.md"), 1 << 20);
  int found = 0;
  for (size_t at = 0; (at = page.find('`', at)) != std::string::npos; ++at) {
    const size_t end = page.find_first_of("`\n", at + 1);
    const std::string word = page.substr(at + 1, end - at - 1);
    at = end;
    const size_t dot = word.find('.');
    if (dot == std::string::npos || !sections.contains(word.substr(0, dot)) ||
        word == "metrics.jsonl")
      continue;
    EXPECT_TRUE(options.contains(word)) << word;
    ++found;
  }
  EXPECT_GT(found, 30);
  for (const char* name : {"num_generations", "max_completion_length", "lr_scheduler_type",
                           "warmup_ratio", "max_grad_norm", "save_steps", "output_dir"})
    EXPECT_FALSE(OptionsNamed(name).empty()) << name;
}

}  // namespace
}  // namespace plumb::configs
