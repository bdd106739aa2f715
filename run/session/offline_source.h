// Where the rows of training without rollouts come from, and which of them are held out; and the
// prompts of a store.
//
// Purpose: the same for pairs, judged completions and demonstrations. Thread safety: pure
// functions; a StoredRows belongs to one thread. Errors: those of the store; kInvalidArgument for a
// data.dataset that it has not.
#pragma once

#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "configs/config.h"
#include "replay/datasets/rows/row_parser.h"
#include "replay/store/store.h"

namespace plumb::run {

// data.train names the folder of a store (and not one that datasets' save_to_disk wrote).
bool IsStoreFolder(const std::string& path);

// The preference dataset that data.train and data.dataset name, open for reading.
struct StoredRows {
  std::unique_ptr<replay::Store> store;
  std::string dataset;
  uint64_t rows = 0;
};
StoredRows OpenStoredRows(const configs::DataConfig& data);
// The same of prompts, of any store: the dataset `wanted`, or where that is empty the only one, or
// that which is called as its role is, "train" or "eval".
StoredRows OpenStoredPrompts(const std::string& folder, const std::string& wanted,
                             const std::string& role);

// Behind what a new model's vocabulary lacks; who says it says where a model is named.
inline constexpr char kNewModelReads[] =
    "; a new model reads digits and signs of sums only: name the folder of one that knows these "
    "rows";

// Calls use(row, where) for each row of a file that has a form, `where` being "FILE:LINE", until it
// says false. The columns are those of data.map.
void ForEachFileRow(const configs::DataConfig& data, const std::string& file,
                    std::optional<replay::RowKind> as,
                    const std::function<bool(replay::ParsedRow&, const std::string&)>& use);

// `refused` is why a row of a run's data has no tokens. Throws it with the line of the first row of
// the file that `is` knows again (a store: data.train and `row`), and with what to do.
[[noreturn]] void ThrowUntokenizable(const Error& refused, const configs::Config& config,
                                     const std::string& row, std::optional<replay::RowKind> as,
                                     const std::function<bool(replay::ParsedRow&)>& is);

// How many of the last usable rows are held out: `wanted`, or for -1 100, of fewer than 1,000 a
// tenth.
size_t HeldOutRows(int64_t wanted, size_t usable);

// Moves list[from..] out of the list.
template <class T>
std::vector<T> TakeFrom(std::vector<T>& list, size_t from) {
  std::vector<T> out(std::make_move_iterator(list.begin() + static_cast<std::ptrdiff_t>(from)),
                     std::make_move_iterator(list.end()));
  list.resize(from);
  return out;
}

}  // namespace plumb::run
