#include "replay/datasets/rows/parquet_source.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include <nlohmann/json.hpp>

#include "replay/datasets/importer.h"
#include "tests/replay/fixtures.h"

#if PLUMB_PARQUET
#include <arrow/array/builder_binary.h>
#include <arrow/array/builder_decimal.h>
#include <arrow/array/builder_dict.h>
#include <arrow/array/builder_nested.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/array/builder_time.h>
#include <arrow/extension/json.h>
#include <arrow/io/file.h>
#include <arrow/io/memory.h>
#include <arrow/json/api.h>
#include <arrow/table.h>
#include <parquet/arrow/writer.h>
#endif

namespace plumb::replay {
namespace {

using Json = nlohmann::json;

#if !PLUMB_PARQUET

TEST(ParquetTest, IsRefusedWithTheWayOut) {
  TempFolder folder;
  EXPECT_FALSE(HasParquet());
  EXPECT_THROWS(ErrorCode::kUnsupported, "to_json",
                RowSource::Open(WriteFile(folder / "x", "PAR1....PAR1")));
}

#else

template <class T>
T Get(arrow::Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().ToString());
  return std::move(result).ValueUnsafe();
}
void Do(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

std::string WriteParquet(const std::string& path, const std::shared_ptr<arrow::Table>& table,
                         int64_t group_rows = 100,
                         arrow::Compression::type codec = arrow::Compression::SNAPPY) {
  auto file = Get(arrow::io::FileOutputStream::Open(path));
  const auto properties = parquet::WriterProperties::Builder()
                              .compression(codec)
                              ->enable_page_checksum()
                              ->data_pagesize(1 << 16)
                              ->build();
  Do(parquet::arrow::WriteTable(*table, arrow::system_memory_pool(), file, group_rows, properties));
  Do(file->Close());
  return path;
}

// Arrow's own reader of JSON lines makes the nested types.
std::shared_ptr<arrow::Table> TableOf(const std::string& lines) {
  auto read = arrow::json::ReadOptions::Defaults();
  read.use_threads = false;
  auto reader = Get(arrow::json::TableReader::Make(
      arrow::system_memory_pool(),
      std::make_shared<arrow::io::BufferReader>(arrow::Buffer::FromString(lines)), read,
      arrow::json::ParseOptions::Defaults()));
  return Get(reader->Read());
}

std::string Lines(int n, const std::function<Json(int)>& row) {
  std::string out;
  for (int i = 0; i < n; ++i) out += row(i).dump() + "\n";
  return out;
}

Json Turn(const std::string& role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

TEST(ParquetTest, GivesTheRecordsOfTheSameRowsAsJsonLines) {
  EXPECT_TRUE(HasParquet());
  const std::function<Json(int)> forms[] = {
      [](int i) -> Json {
        return {{"data_source", "math"},
                {"prompt",
                 {Turn("system", "s"), Turn("user", "q \"" + std::to_string(i) + "\"\n\xC3\xA9")}},
                {"ability", "a"},
                {"reward_model", {{"style", "rule"}, {"ground_truth", std::to_string(i * i)}}},
                {"extra_info",
                 {{"index", i},
                  {"split", "train"},
                  {"share", i / 8.0},
                  {"tags", {"x", "y"}},
                  {"hard", i % 2 == 0}}}};
      },
      [](int i) -> Json {
        return {{"question", "q" + std::to_string(i)}, {"answer", "so\n#### " + std::to_string(i)}};
      },
      [](int i) -> Json {
        return {{"prompt", "p" + std::to_string(i)},
                {"score_chosen", 8.5},
                {"score_rejected", i * 0.01},
                {"chosen", {Turn("user", "p" + std::to_string(i)), Turn("assistant", "y")}},
                {"rejected", {Turn("user", "p" + std::to_string(i)), Turn("assistant", "n")}}};
      },
      [](int i) -> Json {
        return {{"prompt", "p" + std::to_string(i)}, {"completion", "c"}, {"label", i % 3 == 0}};
      },
      [](int i) -> Json {
        return {{"messages", {Turn("user", "u" + std::to_string(i)), Turn("assistant", "a")}},
                {"id", i}};
      },
  };
  for (const auto& form : forms) {
    for (const auto codec :
         {arrow::Compression::SNAPPY, arrow::Compression::ZSTD, arrow::Compression::GZIP}) {
      TempFolder folder;
      const std::string lines = Lines(777, form);
      auto store = OpenStore(folder / "store");
      const auto parquet = ImportFiles(
          *store, ImportOf(WriteParquet(folder / "f.parquet", TableOf(lines), 100, codec), "d"));
      EXPECT_EQ(parquet.files[0].container, "parquet");
      EXPECT_EQ(parquet.files[0].Describe(), "read 777 = used 777");
      const auto text = ImportFiles(*store, ImportOf(WriteFile(folder / "f.jsonl", lines), "d"));
      EXPECT_TRUE(text.unchanged) << "the rows of the two files are the same: "
                                  << lines.substr(0, 200);
    }
  }
}

TEST(ParquetTest, TypesThatJsonHasNot) {
  TempFolder folder;
  arrow::StringDictionaryBuilder coded;
  arrow::DoubleBuilder number;
  arrow::TimestampBuilder when(arrow::timestamp(arrow::TimeUnit::SECOND),
                               arrow::system_memory_pool());
  arrow::Decimal128Builder money(arrow::decimal128(10, 2));
  auto keys = std::make_shared<arrow::StringBuilder>();
  auto items = std::make_shared<arrow::Int64Builder>();
  arrow::MapBuilder map(arrow::system_memory_pool(), keys, items);
  arrow::BinaryBuilder bytes;
  for (int i = 0; i < 3; ++i) {
    Do(coded.Append(i == 1 ? "odd" : "even"));
    Do(i == 1 ? number.AppendNull() : number.Append(i == 0 ? std::nan("") : 0.1));
    Do(when.Append(86400 * i));
    Do(money.Append(arrow::Decimal128(1050 + i)));
    Do(map.Append());
    Do(keys->Append("k"));
    Do(items->Append(i));
    Do(bytes.Append(i == 2 ? "\xFF" : "ok"));
  }
  const auto table = arrow::Table::Make(
      arrow::schema({arrow::field("prompt", coded.type()), arrow::field("number", arrow::float64()),
                     arrow::field("when", when.type()), arrow::field("money", money.type()),
                     arrow::field("map", map.type()), arrow::field("bytes", arrow::binary())}),
      {Get(coded.Finish()), Get(number.Finish()), Get(when.Finish()), Get(money.Finish()),
       Get(map.Finish()), Get(bytes.Finish())});
  auto source = RowSource::Open(WriteParquet(folder / "f", table));
  SourceRow row;
  ASSERT_TRUE(source->Next(row));
  EXPECT_EQ(row.number, 1);
  EXPECT_EQ(
      row.text,
      R"({"prompt":"even","number":NaN,"when":"1970-01-01 00:00:00.000","money":"10.50","map":{"k":0},"bytes":"ok"})");
  ASSERT_TRUE(source->Next(row));
  EXPECT_EQ(Json::parse(row.text).at("number"), nullptr);
  ASSERT_TRUE(source->Next(row));
  EXPECT_NE(row.text.find("\"bytes\":Binary"), std::string_view::npos) << row.text;
  EXPECT_FALSE(source->Next(row));
  EXPECT_EQ(source->Progress(), 1);
  auto store = OpenStore(folder / "store");
  const auto report = ImportFiles(*store, ImportOf(folder / "f", "d"));
  EXPECT_EQ(report.files[0].Describe(), "read 3 = used 3") << "nobody needs the odd columns";
  std::string notes;
  for (const std::string& line : report.files[0].notes.Describe()) notes += line + "\n";
  EXPECT_NE(notes.find("column 'bytes' holds binary data"), std::string::npos) << notes;
  EXPECT_NE(notes.find("column 'number' holds NaN"), std::string::npos) << notes;
  ImportRequest needed = ImportOf(folder / "f", "needed");
  needed.rows.map = {{"answer", "bytes"}};
  const auto refused = ImportFiles(*store, needed).files[0];
  EXPECT_EQ(refused.Describe(), "read 3 = used 2 + 1 bad_utf8");
  EXPECT_NE(refused.examples.at(0).find("column 'bytes' holds binary data that is no text: name a "
                                        "column of text (--map prompt=COLUMN"
                                        ", in a recipe data.map)"),
            std::string::npos);
  source = RowSource::Open(folder / "f", /*max_row_bytes=*/16);
  ASSERT_TRUE(source->Next(row));
  EXPECT_TRUE(row.too_long && row.text.empty());
}

// What datasets writes for a column of mixed types: the logical type JSON.
TEST(ParquetTest, JsonColumnsAreWhatTheySay) {
  TempFolder folder;
  arrow::StringBuilder prompt, json;
  const char* const values[] = {R"({"b": 1, "a": [true, "x"]})",
                                R"("a text")",
                                "[1, 2]",
                                "7",
                                "null",
                                R"({"n": NaN})",
                                "no JSON {"};
  for (int i = 0; i < 7; ++i) {
    Do(prompt.Append("p" + std::to_string(i)));
    Do(json.Append(values[i]));
  }
  const auto texts = Get(json.Finish());
  const auto type = arrow::extension::json();
  const auto table = arrow::Table::Make(
      arrow::schema({arrow::field("prompt", arrow::utf8()), arrow::field("answer", type)}),
      {Get(prompt.Finish()), arrow::ExtensionType::WrapArray(type, texts)});
  const std::string path = WriteParquet(folder / "f", table);
  auto store = OpenStore(folder / "store");
  const auto report = ImportFiles(*store, ImportOf(path, "d"));
  EXPECT_EQ(report.files[0].Describe(), "read 7 = used 6 + 1 bad_json");
  EXPECT_NE(report.files[0].examples.at(0).find("column 'answer' holds NaN"), std::string::npos)
      << report.files[0].examples[0];
  const char* const truths[] = {
      R"({"a":[true,"x"],"b":1})", "a text", "[1,2]", "7", "", "no JSON {"};
  for (uint64_t i = 0; i < 6; ++i)
    EXPECT_EQ(store->ReadPrompt("d", i).ground_truth, truths[i]) << i;
}

TEST(ParquetTest, CutOrDamagedFilesAreTypedErrorsAndStoreNothing) {
  TempFolder folder;
  const std::string lines = Lines(500, [](int i) -> Json {
    return {{"prompt", "question " + std::to_string(i * 7919)}, {"answer", i}};
  });
  const std::string bytes = ReadFile(WriteParquet(folder / "whole", TableOf(lines)));
  auto store = OpenStore(folder / "store");
  const auto import = [&](const std::string& text) {
    return ImportFiles(*store, ImportOf(WriteFile(folder / "x", text), "x"));
  };
  for (size_t cut = 4; cut < bytes.size(); cut += bytes.size() / 37) {
    EXPECT_THROWS(ErrorCode::kCorruption, "x", import(bytes.substr(0, cut)));
  }
  EXPECT_THROWS(ErrorCode::kUnsupported, "encrypted", import("PARE" + bytes.substr(4)));
  std::mt19937 random(7);
  int refused = 0;
  for (int n = 0; n < 300; ++n) {
    std::string broken = bytes;
    const size_t at = 4 + random() % (bytes.size() - 4);
    broken[at] = static_cast<char>(broken[at] ^ (1 << random() % 8));
    WriteFile(folder / "x", broken);
    try {
      auto source = RowSource::Open(folder / "x");
      SourceRow row;
      while (source->Next(row)) {
      }
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::kCorruption || error.code() == ErrorCode::kUnsupported)
          << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 150) << "pages carry checksums";
  EXPECT_EQ(store->PromptCount("x"), 0u);
  EXPECT_EQ(import(bytes).rows, 500u);
}

// Peak memory of a child that reads the file, in KB.
int64_t PeakOfReading(const std::string& path, int64_t expected) {
  const pid_t child = ::fork();
  if (child == 0) {
    auto source = RowSource::Open(path);
    SourceRow row;
    int64_t n = 0;
    while (source->Next(row)) ++n;
    ::_exit(n == expected ? 0 : 1);
  }
  int status = 0;
  rusage usage{};
  ::wait4(child, &status, 0, &usage);
  EXPECT_EQ(status, 0);
  return usage.ru_maxrss;
}

TEST(ParquetTest, MemoryDoesNotGrowWithTheFile) {
  TempFolder folder;
  std::mt19937_64 random(3);
  const auto write = [&](const std::string& name, int rows) {
    const auto noise = [&] {
      std::string text;
      for (int k = 0; k < 50; ++k) text += std::to_string(random());
      return text;
    };
    // One row group: what a reader of whole column chunks would hold at once.
    return WriteParquet(folder / name,
                        TableOf(Lines(rows,
                                      [&](int) -> Json {
                                        return {{"prompt", noise()}, {"answer", "4"}};
                                      })),
                        rows);
  };
  const std::string small = write("small", 4000), large = write("large", 40000);
  EXPECT_GT(std::filesystem::file_size(large), size_t{15} << 20);
  const int64_t one = PeakOfReading(small, 4000), ten = PeakOfReading(large, 40000);
  EXPECT_LT(ten, one + 8 * 1024) << one << " KB, then " << ten << " KB";
}

#endif

}  // namespace
}  // namespace plumb::replay
