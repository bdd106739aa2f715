#include "run/models/line_file.h"

#include <gtest/gtest.h>

#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

TEST(LineFile, IsMadeWithItsFirstLineOrNotAtAll) {
  const plumb::testing::TempFolder temp;
  LineFile none(""), file(temp / "out.jsonl");
  EXPECT_FALSE(none);
  none.Write({{"a", 1}});
  ASSERT_TRUE(file);
  EXPECT_FALSE(RealFileSystem().Exists(temp / "out.jsonl"));
  file.Write({{"b", 2}, {"a", "x\xff"}});
  file.Write({{"c", 3}});
  EXPECT_EQ(RealFileSystem().ReadFile(temp / "out.jsonl", 100),
            "{\"b\":2,\"a\":\"x\xef\xbf\xbd\"}\n{\"c\":3}\n");
}

}  // namespace
}  // namespace plumb::run
