#include "replay/datasets/rows/parquet_writer.h"

#include "common/base/error.h"

#if !PLUMB_PARQUET

namespace plumb::replay {

void WriteParquet(const std::string&, const std::string& out) {
  throw Error(ErrorCode::kUnsupported,
              "this program was built without Arrow and writes no Parquet: export to F.jsonl, then "
              "python3 -c \"import pandas; pandas.read_json('F.jsonl', lines=True)"
              ".to_parquet('F.parquet')\"",
              out);
}

}  // namespace plumb::replay

#else

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include <arrow/io/file.h>
#include <arrow/json/options.h>
#include <arrow/json/reader.h>
#include <arrow/memory_pool.h>
#include <arrow/table.h>
#include <arrow/type.h>
#include <parquet/arrow/writer.h>
#include <parquet/properties.h>

#include "common/base/file.h"
#include "replay/datasets/rows/line_reader.h"

namespace plumb::replay {
namespace {

constexpr int64_t kRowGroup = 16384;  // rows
constexpr size_t kMinBlock = size_t{1} << 20, kMaxLine = size_t{256} << 20;

[[noreturn]] void Fail(const arrow::Status& status, const std::string& out) {
  if (status.IsIOError())
    throw Error(ErrorCode::kIo, "could not write the Parquet file: " + status.message(), out);
  throw Error(ErrorCode::kUnsupported,
              "these rows do not fit into a table (" + status.message() +
                  "): a column of Parquet has one type in all rows. Export to a .jsonl file, which "
                  "holds them as they are",
              out);
}

template <class T>
T Check(arrow::Result<T> result, const std::string& out) {
  if (!result.ok()) Fail(result.status(), out);
  return std::move(result).ValueUnsafe();
}

// Arrow takes texts that look like a time for times.
std::shared_ptr<arrow::Field> WithoutTimes(const std::shared_ptr<arrow::Field>& field);

std::shared_ptr<arrow::DataType> WithoutTimes(const std::shared_ptr<arrow::DataType>& type) {
  if (type->id() == arrow::Type::TIMESTAMP) return arrow::utf8();
  if (type->id() == arrow::Type::LIST) return arrow::list(WithoutTimes(type->field(0)));
  if (type->id() != arrow::Type::STRUCT) return type;
  std::vector<std::shared_ptr<arrow::Field>> fields;
  for (const auto& field : type->fields()) fields.push_back(WithoutTimes(field));
  return arrow::struct_(fields);
}

std::shared_ptr<arrow::Field> WithoutTimes(const std::shared_ptr<arrow::Field>& field) {
  return field->WithType(WithoutTimes(field->type()));
}

std::shared_ptr<arrow::Table> ReadTable(const std::string& lines, size_t block,
                                        const std::shared_ptr<arrow::Schema>& schema,
                                        const std::string& out) {
  auto read = arrow::json::ReadOptions::Defaults();
  read.use_threads = false;
  read.block_size = static_cast<int32_t>(block);
  auto parse = arrow::json::ParseOptions::Defaults();
  parse.explicit_schema = schema;
  const auto file = Check(arrow::io::ReadableFile::Open(lines), out);
  const auto reader =
      Check(arrow::json::TableReader::Make(arrow::default_memory_pool(), file, read, parse), out);
  return Check(reader->Read(), out);
}

}  // namespace

void WriteParquet(const std::string& lines, const std::string& out) {
  size_t longest = 0;
  {
    LineReader reader(lines, kMaxLine);
    for (std::string_view line; reader.Next(line);) {
      if (reader.too_long())
        throw Error(ErrorCode::kUnsupported,
                    "a row is larger than 256 MiB: export to a .jsonl file", out);
      longest = std::max(longest, line.size());
    }
  }
  const size_t block = std::max(kMinBlock, 2 * longest + 2);  // a row has to fit into a block
  auto table = ReadTable(lines, block, nullptr, out);
  std::vector<std::shared_ptr<arrow::Field>> fields;
  for (const auto& field : table->schema()->fields()) fields.push_back(WithoutTimes(field));
  const auto schema = arrow::schema(fields);
  if (!schema->Equals(*table->schema())) table = ReadTable(lines, block, schema, out);

  const std::string part = out + ".part";
  try {
    const auto sink = Check(arrow::io::FileOutputStream::Open(part), out);
    const auto how =
        parquet::WriterProperties::Builder().compression(parquet::Compression::SNAPPY)->build();
    const auto written =
        parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), sink, kRowGroup, how);
    if (!written.ok()) Fail(written, out);
    if (const auto closed = sink->Close(); !closed.ok()) Fail(closed, out);
    RealFileSystem().Rename(part, out);
  } catch (...) {
    if (RealFileSystem().Exists(part)) RealFileSystem().Remove(part);
    throw;
  }
}

}  // namespace plumb::replay

#endif
