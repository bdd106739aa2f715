// Where the rows of training without rollouts come from, and which of them are held out.
//
// Purpose: the same for pairs, judged completions and demonstrations. Thread safety: pure
// functions; a StoredRows belongs to one thread. Errors: those of the store; kInvalidArgument for a
// data.dataset that it has not.
#pragma once

#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "configs/config.h"
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
