// Small Parquet files, written by Arrow. Thread safety: pure function.
#pragma once

#include <string>
#include <vector>

namespace plumb::fuzz {

// One or a few bytes that only look like Parquet where Arrow is not built in.
std::vector<std::string> ParquetFiles();

}  // namespace plumb::fuzz
