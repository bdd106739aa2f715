// Search: what is found first, queries of any bytes, and corpora that are none.
#include "environment/tools/search_tool.h"

#include <gtest/gtest.h>

#include <fstream>

#include "common/base/error.h"
#include "tests/testing/temp_folder.h"

namespace plumb::environment {
namespace {

TEST(SearchTool, FindsTheBestTextFirst) {
  SearchIndex index(PLUMB_SOURCE_DIR "/examples/environments/corpus.jsonl");
  EXPECT_EQ(index.size(), 4);
  const auto found = index.Search("rivers of ice", 2);
  ASSERT_GE(found.size(), 1u);
  EXPECT_EQ(found[0].title, "Glaciers");
  EXPECT_NE(found[0].text.find("rivers of ice"), std::string::npos);
  EXPECT_TRUE(index.Search("zeppelin", 3).empty());
  // Nothing in a query is an operator.
  for (const char* query : {"", "\"", "a AND (", "NEAR(", "title:Honey OR", "*", "'; DROP", "\xff"})
    EXPECT_NO_THROW(index.Search(query, 3)) << query;
  EXPECT_EQ(index.Search("HONEY*\"", 1).at(0).title, "Honey");
}

TEST(SearchTool, ReadsPlainLinesAndNamesBadOnes) {
  plumb::testing::TempFolder folder;
  const std::string text = folder.path() + "/corpus.txt", json = folder.path() + "/corpus.jsonl";
  std::ofstream(text) << "one line\n\nanother line about tides\n";
  EXPECT_EQ(SearchIndex(text).size(), 2);
  EXPECT_EQ(SearchIndex(text).Search("tides", 3).at(0).text, "another line about tides");
  std::ofstream(json) << "{\"contents\":\"fine\"}\n{\"body\":\"no\"}\n";
  try {
    SearchIndex index(json);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("corpus.jsonl:2"), std::string::npos) << error.what();
  }
  std::ofstream(text, std::ios::trunc) << "\n";
  EXPECT_THROW(SearchIndex{text}, Error);
  EXPECT_THROW(SearchIndex{folder.path() + "/none"}, Error);
}

}  // namespace
}  // namespace plumb::environment
