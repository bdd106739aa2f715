#include "parquet_seeds.h"

#include <cstdlib>

#if PLUMB_PARQUET
#include <arrow/buffer.h>
#include <arrow/io/memory.h>
#include <arrow/json/api.h>
#include <arrow/memory_pool.h>
#include <arrow/table.h>
#include <parquet/arrow/writer.h>
#endif

namespace plumb::fuzz {

#if PLUMB_PARQUET

std::vector<std::string> ParquetFiles() {
  std::vector<std::string> out;
  const std::string rows[] = {
      "{\"prompt\": \"p\", \"answer\": \"1\", \"weight\": 0.5, \"n\": 3, \"b\": "
      "true}\n{\"prompt\": \"q\", \"answer\": null, \"weight\": 1, \"n\": 4, \"b\": false}\n",
      "{\"prompt\": [{\"role\": \"user\", \"content\": \"u\"}], \"chosen\": \"a\", \"rejected\": "
      "\"b\"}\n",
  };
  for (const std::string& lines : rows) {
    for (const auto codec : {arrow::Compression::UNCOMPRESSED, arrow::Compression::SNAPPY}) {
      auto read = arrow::json::ReadOptions::Defaults();
      read.use_threads = false;
      const auto input =
          std::make_shared<arrow::io::BufferReader>(arrow::Buffer::FromString(lines));
      const auto reader = arrow::json::TableReader::Make(arrow::system_memory_pool(), input, read,
                                                         arrow::json::ParseOptions::Defaults());
      const auto table = reader.ValueOrDie()->Read().ValueOrDie();
      const auto sink =
          arrow::io::BufferOutputStream::Create(4096, arrow::system_memory_pool()).ValueOrDie();
      const auto properties =
          parquet::WriterProperties::Builder().compression(codec)->enable_page_checksum()->build();
      const auto status =
          parquet::arrow::WriteTable(*table, arrow::system_memory_pool(), sink, 100, properties);
      if (!status.ok()) std::abort();
      out.push_back(sink->Finish().ValueOrDie()->ToString());
    }
  }
  return out;
}

#else

std::vector<std::string> ParquetFiles() { return {"PAR1", "PAR1....PAR1"}; }

#endif

}  // namespace plumb::fuzz
