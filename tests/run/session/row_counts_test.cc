#include "run/session/row_counts.h"

#include <gtest/gtest.h>

namespace plumb::run {
namespace {

TEST(RowCountsTest, SayWhatBecameOfEachRow) {
  RowCounts train("train"), eval("eval");
  train.Read(60);
  train.Read(40);  // another file
  train.Used(97);
  train.Dropped("overlong", 2);
  train.Dropped("bad_json", 1);
  train.Dropped("bad_utf8", 0);
  eval.Read(50);
  eval.Used(50);
  std::map<std::string, int64_t> all = {{"inserts", 7}};
  all.insert(train.counters().begin(), train.counters().end());
  all.insert(eval.counters().begin(), eval.counters().end());
  EXPECT_EQ(RowLine(all),
            "rows: eval 50 of 50 used; train 97 of 100 used (1 bad_json, 2 overlong)");
  EXPECT_EQ(RowsJson(all),
            nlohmann::ordered_json::parse(
                R"({"eval":{"read":50,"used":50,"dropped":{}},)"
                R"("train":{"read":100,"used":97,"dropped":{"bad_json":1,"overlong":2}}})"));
  EXPECT_EQ(RowLine({{"inserts", 7}}), "");
}

}  // namespace
}  // namespace plumb::run
