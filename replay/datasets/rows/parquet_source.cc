#include "replay/datasets/rows/parquet_source.h"

#include "common/base/error.h"

#if !PLUMB_PARQUET

namespace plumb::replay {

bool HasParquet() { return false; }

std::unique_ptr<RowSource> OpenParquet(const std::string& path, size_t) {
  throw Error(ErrorCode::kUnsupported,
              "is a Parquet file, and this program was built without Arrow: build it where `make "
              "setup` could fetch pyarrow, or "
              "convert the file to JSON lines, e.g. python3 -c \"import pandas; "
              "pandas.read_parquet('F.parquet').to_json('F.jsonl', orient='records', lines=True)\"",
              path);
}

}  // namespace plumb::replay

#else

#include <cmath>
#include <exception>
#include <vector>

#include <filesystem>

#include <arrow/array.h>
#include <arrow/extension_type.h>
#include <arrow/io/file.h>
#include <arrow/memory_pool.h>
#include <arrow/record_batch.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <simdjson.h>
#include <nlohmann/json.hpp>

#include "common/record/json_text.h"
#include "common/text/unicode.h"
#include "replay/datasets/rows/line_reader.h"
#include "replay/datasets/rows/odd_values.h"

namespace plumb::replay {
namespace {

constexpr int64_t kBatchRows = 256, kMaxBytes = int64_t{1} << 30, kBufferBytes = int64_t{256} << 10;
constexpr int kMaxDepth = 128;  // of columns; the row parser has its own bound

[[noreturn]] void Fail(const arrow::Status& status, const std::string& path) {
  if (status.IsOutOfMemory() || status.IsCapacityError()) {
    throw Error(ErrorCode::kUnsupported,
                "needs more than 1 GB to read 256 of its rows: write it with smaller pages", path);
  }
  if (status.IsNotImplemented())
    throw Error(ErrorCode::kUnsupported,
                "uses a feature of Parquet that is not read: " + status.message(), path);
  throw Error(ErrorCode::kCorruption, "the Parquet file is damaged or was cut: " + status.message(),
              path);
}

template <class T>
T Check(arrow::Result<T> result, const std::string& path) {
  if (!result.ok()) Fail(result.status(), path);
  return std::move(result).ValueUnsafe();
}

// What is no number keeps its name: the row parser says what becomes of it.
void AppendNumber(std::string& out, double value) {
  if (std::isfinite(value)) out += nlohmann::json(value).dump();
  else out += std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
}

// Of a column of bytes. Those of a text column are the row parser's to judge.
void AppendBytes(std::string& out, std::string_view bytes) {
  if (IsUtf8(bytes)) {
    AppendJsonText(out, bytes);
  } else {
    out += "Binary";
  }
}

// A value of logical type JSON: what it says, not the text in which it says it. A text that is no
// JSON stays a text.
void AppendJson(std::string& out, std::string_view text) {
  thread_local simdjson::dom::parser parser;
  thread_local std::string mended;
  const auto parses = [](std::string_view candidate) {
    return parser.parse(candidate.data(), candidate.size()).error() == simdjson::SUCCESS;
  };
  if (parses(text) || (!MendRow(text, mended).empty() && parses(mended))) {
    out += text;
  } else {
    AppendJsonText(out, text);
  }
}

std::string_view TextOf(const arrow::Array& array, int64_t row) {
  switch (array.type_id()) {
    case arrow::Type::STRING: return static_cast<const arrow::StringArray&>(array).GetView(row);
    case arrow::Type::LARGE_STRING:
      return static_cast<const arrow::LargeStringArray&>(array).GetView(row);
    case arrow::Type::STRING_VIEW:
      return static_cast<const arrow::StringViewArray&>(array).GetView(row);
    default:
      throw Error(ErrorCode::kUnsupported,
                  "a JSON column stored as " + array.type()->ToString() + " is not read");
  }
}

template <class Array>
bool AppendList(std::string& out, const arrow::Array& array, int64_t row, int depth);

// Of one value. Arrays that hold others ask for themselves.
void AppendValue(std::string& out, const arrow::Array& array, int64_t row, int depth) {
  if (depth > kMaxDepth)
    throw Error(ErrorCode::kUnsupported,
                "columns are nested deeper than " + std::to_string(kMaxDepth));
  if (array.IsNull(row)) {
    out += "null";
    return;
  }
  using arrow::Type;
  switch (array.type_id()) {
    case Type::BOOL:
      out += static_cast<const arrow::BooleanArray&>(array).Value(row) ? "true" : "false";
      return;
    case Type::INT8:
      out += std::to_string(static_cast<const arrow::Int8Array&>(array).Value(row));
      return;
    case Type::INT16:
      out += std::to_string(static_cast<const arrow::Int16Array&>(array).Value(row));
      return;
    case Type::INT32:
      out += std::to_string(static_cast<const arrow::Int32Array&>(array).Value(row));
      return;
    case Type::INT64:
      out += std::to_string(static_cast<const arrow::Int64Array&>(array).Value(row));
      return;
    case Type::UINT8:
      out += std::to_string(static_cast<const arrow::UInt8Array&>(array).Value(row));
      return;
    case Type::UINT16:
      out += std::to_string(static_cast<const arrow::UInt16Array&>(array).Value(row));
      return;
    case Type::UINT32:
      out += std::to_string(static_cast<const arrow::UInt32Array&>(array).Value(row));
      return;
    case Type::UINT64:
      out += std::to_string(static_cast<const arrow::UInt64Array&>(array).Value(row));
      return;
    case Type::FLOAT:
      AppendNumber(out, static_cast<const arrow::FloatArray&>(array).Value(row));
      return;
    case Type::DOUBLE:
      AppendNumber(out, static_cast<const arrow::DoubleArray&>(array).Value(row));
      return;
    case Type::STRING:
    case Type::LARGE_STRING:
    case Type::STRING_VIEW: AppendJsonText(out, TextOf(array, row)); return;
    case Type::BINARY:
      AppendBytes(out, static_cast<const arrow::BinaryArray&>(array).GetView(row));
      return;
    case Type::LARGE_BINARY:
      AppendBytes(out, static_cast<const arrow::LargeBinaryArray&>(array).GetView(row));
      return;
    case Type::BINARY_VIEW:
      AppendBytes(out, static_cast<const arrow::BinaryViewArray&>(array).GetView(row));
      return;
    case Type::FIXED_SIZE_BINARY:
      AppendBytes(out, static_cast<const arrow::FixedSizeBinaryArray&>(array).GetView(row));
      return;
    case Type::LIST: AppendList<arrow::ListArray>(out, array, row, depth); return;
    case Type::LARGE_LIST: AppendList<arrow::LargeListArray>(out, array, row, depth); return;
    case Type::FIXED_SIZE_LIST:
      AppendList<arrow::FixedSizeListArray>(out, array, row, depth);
      return;
    case Type::STRUCT: {
      const auto& fields = static_cast<const arrow::StructArray&>(array);
      for (int i = 0; i < fields.num_fields(); ++i) {
        out.push_back(i == 0 ? '{' : ',');
        AppendJsonText(out, array.type()->field(i)->name());
        out.push_back(':');
        AppendValue(out, *fields.field(i), row, depth + 1);
      }
      out += fields.num_fields() == 0 ? "{}" : "}";
      return;
    }
    case Type::MAP: {
      const auto& map = static_cast<const arrow::MapArray&>(array);
      if (map.keys()->type_id() != Type::STRING) break;
      const auto& keys = static_cast<const arrow::StringArray&>(*map.keys());
      out.push_back('{');
      for (int64_t i = map.value_offset(row); i < map.value_offset(row + 1); ++i) {
        if (i > map.value_offset(row)) out.push_back(',');
        AppendJsonText(out, keys.GetView(i));
        out.push_back(':');
        AppendValue(out, *map.items(), i, depth + 1);
      }
      out.push_back('}');
      return;
    }
    case Type::DICTIONARY: {
      const auto& coded = static_cast<const arrow::DictionaryArray&>(array);
      const int64_t at = coded.GetValueIndex(row);
      if (at < 0 || at >= coded.dictionary()->length()) {
        throw Error(ErrorCode::kCorruption, "a dictionary column points behind its dictionary");
      }
      AppendValue(out, *coded.dictionary(), at, depth + 1);
      return;
    }
    case Type::EXTENSION: {
      const arrow::Array& storage = *static_cast<const arrow::ExtensionArray&>(array).storage();
      if (static_cast<const arrow::ExtensionType&>(*array.type()).extension_name() != "arrow.json")
        return AppendValue(out, storage, row, depth + 1);
      if (storage.IsNull(row)) out += "null";
      else AppendJson(out, TextOf(storage, row));
      return;
    }
    case Type::DATE32:
    case Type::DATE64:
    case Type::TIMESTAMP:
    case Type::TIME32:
    case Type::TIME64:
    case Type::DURATION:
    case Type::DECIMAL128:
    case Type::DECIMAL256: AppendJsonText(out, Check(array.GetScalar(row), "")->ToString()); return;
    case Type::HALF_FLOAT:
      AppendNumber(out, std::stod(Check(array.GetScalar(row), "")->ToString()));
      return;
    default: break;
  }
  throw Error(ErrorCode::kUnsupported,
              "a column of type " + array.type()->ToString() + " is not read");
}

template <class Array>
bool AppendList(std::string& out, const arrow::Array& array, int64_t row, int depth) {
  const auto& lists = static_cast<const Array&>(array);
  const auto begin = lists.value_offset(row);
  const auto end = begin + lists.value_length(row);
  out.push_back('[');
  for (auto i = begin; i < end; ++i) {
    if (i > begin) out.push_back(',');
    AppendValue(out, *lists.values(), i, depth + 1);
  }
  out.push_back(']');
  return true;
}

// What a file of this size has reason to need: numbers in a small file's footer may claim anything.
int64_t Room(const std::string& path) {
  std::error_code ignored;
  const auto size = static_cast<int64_t>(
      std::min<uintmax_t>(std::filesystem::file_size(path, ignored), kMaxBytes));
  return std::min(kMaxBytes, (int64_t{64} << 20) + 256 * (ignored ? 0 : size));
}

class Parquet : public RowSource {
 public:
  Parquet(const std::string& path, size_t max_row_bytes)
      : path_(path), max_row_bytes_(max_row_bytes), pool_(arrow::system_memory_pool(), Room(path)) {
    Guarded([&] {
      file_ = Check(arrow::io::ReadableFile::Open(path, &pool_), path);
      parquet::ReaderProperties properties(&pool_);
      properties.enable_buffered_stream();  // else a whole column of a row group is read at once
      properties.set_buffer_size(kBufferBytes);
      properties.set_page_checksum_verification(true);
      parquet::ArrowReaderProperties arrow_properties(/*use_threads=*/false);
      arrow_properties.set_batch_size(kBatchRows);
      arrow_properties.set_pre_buffer(false);
      arrow_properties.set_arrow_extensions_enabled(
          true);  // names the columns of logical type JSON
      parquet::arrow::FileReaderBuilder builder;
      if (const auto opened = builder.Open(file_, properties); !opened.ok()) Fail(opened, path);
      builder.memory_pool(&pool_)->properties(arrow_properties);
      reader_ = Check(builder.Build(), path);
      rows_ = reader_->parquet_reader()->metadata()->num_rows();
      batches_ = Check(reader_->GetRecordBatchReader(), path);
    });
  }

  bool Next(SourceRow& row) override {
    while (!batch_ || at_ >= batch_->num_rows()) {
      if (!ReadBatch()) return false;
    }
    row.number = ++number_;
    row.too_long = row.blank = false;
    std::string& text = row.memory;
    text.clear();
    Guarded([&] {
      for (int i = 0; i < batch_->num_columns(); ++i) {
        text.push_back(i == 0 ? '{' : ',');
        AppendJsonText(text, batch_->column_name(i));
        text.push_back(':');
        AppendValue(text, *columns_[static_cast<size_t>(i)], at_, 0);
      }
      text += batch_->num_columns() == 0 ? "{}" : "}";
    });
    ++at_;
    if (text.size() > max_row_bytes_) {
      text = std::string();
      row.too_long = true;
    }
    if (text.capacity() < text.size() + kPadding) text.reserve(2 * text.size() + kPadding);
    row.text = text;
    return true;
  }
  const char* container() const override { return "parquet"; }
  double Progress() const override {
    return rows_ == 0 ? 1 : static_cast<double>(number_) / static_cast<double>(rows_);
  }

 private:
  bool ReadBatch() {
    at_ = 0;
    Guarded([&] {
      columns_.clear();
      batch_.reset();  // its memory, before that of the next
      if (const auto read = batches_->ReadNext(&batch_); !read.ok()) Fail(read, path_);
      if (!batch_) return;
      if (const auto valid = batch_->Validate(); !valid.ok()) Fail(valid, path_);
      columns_ = batch_->columns();
    });
    if (batch_) return true;
    if (number_ == rows_) return false;
    throw Error(ErrorCode::kCorruption,
                "the Parquet file is damaged: it has " + std::to_string(number_) +
                    " rows and says that they are " + std::to_string(rows_),
                path_);
  }

  // What the library throws is about the file.
  template <class Body>
  void Guarded(Body body) const {
    try {
      body();
    } catch (const Error& error) {
      if (!error.where().empty()) throw;
      throw Error(error.code(), error.message(), path_);
    } catch (const std::bad_alloc&) {
      Fail(arrow::Status::OutOfMemory(""), path_);
    } catch (const std::exception& error) {
      Fail(arrow::Status::Invalid(error.what()), path_);
    }
  }

  const std::string path_;
  const size_t max_row_bytes_;
  arrow::CappedMemoryPool pool_;
  std::shared_ptr<arrow::io::ReadableFile> file_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::unique_ptr<arrow::RecordBatchReader> batches_;
  std::shared_ptr<arrow::RecordBatch> batch_;
  std::vector<std::shared_ptr<arrow::Array>> columns_;
  int64_t at_ = 0, number_ = 0, rows_ = 0;
};

}  // namespace

bool HasParquet() { return true; }

std::unique_ptr<RowSource> OpenParquet(const std::string& path, size_t max_row_bytes) {
  return std::make_unique<Parquet>(path, max_row_bytes);
}

}  // namespace plumb::replay

#endif
