#include "replay/datasets/rows/parquet_writer.h"

#include "replay/datasets/rows/parquet_source.h"
#include "replay/datasets/rows/row_source.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

std::vector<std::string> Written(const std::string& lines) {
  TempFolder folder;
  const std::string out = folder / "out.parquet";
  WriteParquet(WriteFile(folder / "lines", lines), out);
  EXPECT_FALSE(std::filesystem::exists(out + ".part"));
  const auto source = RowSource::Open(out);
  EXPECT_STREQ(source->container(), "parquet");
  std::vector<std::string> rows;
  for (SourceRow row; source->Next(row);) rows.emplace_back(row.text);
  return rows;
}

TEST(ParquetWriterTest, RowsComeBackAsTheyWere) {
  if (!HasParquet()) GTEST_SKIP() << "built without Arrow";
  const std::vector<std::string> rows = {
      R"({"prompt":[{"role":"user","content":"q"}],"n":1,"x":0.5,"ok":true,"at":"2024-01-01","info":{"when":"2024-01-01T00:00:00","list":["2020-01-01"]}})",
      R"({"prompt":[{"role":"user","content":"é\n"}],"n":9007199254740993,"x":-2.0,"ok":false,"at":"later","info":{"when":"","list":[]}})"};
  EXPECT_EQ(Written(rows[0] + "\n" + rows[1] + "\n"), rows);
  // Rows far longer than a block of Arrow's reader.
  const std::string longer = R"({"text":")" + std::string(3 << 20, 'x') + R"("})";
  EXPECT_EQ(Written(longer + "\n" + R"({"text":"y"})" + "\n"),
            (std::vector<std::string>{longer, R"({"text":"y"})"}));
  EXPECT_EQ(Written("{\"a\":1}\n{\"b\":2}\n"),
            (std::vector<std::string>{R"({"a":1,"b":null})", R"({"a":null,"b":2})"}));
}

TEST(ParquetWriterTest, WhatIsNoTableIsRefusedAndLeavesNothing) {
  TempFolder folder;
  const std::string out = folder / "out.parquet";
  const auto write = [&](const std::string& lines) {
    WriteParquet(WriteFile(folder / "lines", lines), out);
  };
  if (!HasParquet()) {
    EXPECT_THROWS(ErrorCode::kUnsupported, "to_parquet", write("{\"a\":1}\n"));
    return;
  }
  EXPECT_THROWS(ErrorCode::kUnsupported, ".jsonl file", write("{\"a\":1}\n{\"a\":\"one\"}\n"));
  EXPECT_THROWS(ErrorCode::kUnsupported, ".jsonl file", write("{\"a\":{}}\n"));
  EXPECT_FALSE(std::filesystem::exists(out) || std::filesystem::exists(out + ".part"));
  EXPECT_THROWS(
      ErrorCode::kIo, "no/such/folder",
      WriteParquet(WriteFile(folder / "lines", "{\"a\":1}\n"), folder / "no/such/folder"));
}

}  // namespace
}  // namespace plumb::replay
