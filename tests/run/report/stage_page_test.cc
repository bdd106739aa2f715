// run/report/stage_page.h: the page and the table of a run of stages.
#include "run/report/stage_page.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace plumb::run {
namespace {

const std::vector<StageRow> kRows = {{.name = "1-sft",
                                      .algorithm = "sft",
                                      .steps = "3 of 3",
                                      .seconds = "2.0 s",
                                      .before = "1 / perplexity 0.004",
                                      .after = "1 / perplexity 0.700",
                                      .bar = "0.60",
                                      .state = "done"},
                                     {.name = "2-<rm>",
                                      .algorithm = "reward_model",
                                      .steps = {},
                                      .seconds = {},
                                      .before = {},
                                      .after = {},
                                      .bar = {},
                                      .state = "not begun"}};

TEST(StagePage, LinksStagesThatBeganAndEscapesNames) {
  const std::string page = StagePage("r1 & tiny", kRows);
  EXPECT_NE(page.find("<a href=\"1-sft/report.html\">1-sft</a>"), std::string::npos) << page;
  EXPECT_NE(page.find("r1 &amp; tiny"), std::string::npos);
  EXPECT_NE(page.find("2-&lt;rm&gt;"), std::string::npos);
  EXPECT_EQ(page.find("2-&lt;rm&gt;/report.html"), std::string::npos) << "it has no page yet";
}

TEST(StagePage, ATableHasALineAStageInColumns) {
  const std::string table = StageTable(kRows);
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 3);
  const size_t head = table.find("state"), first = table.find("done");
  EXPECT_EQ(head, first - (table.find('\n') + 1)) << table;
}

}  // namespace
}  // namespace plumb::run
