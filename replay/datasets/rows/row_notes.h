// What people are told of the rows that are used: what was passed over in them, counted, and the
// first rows themselves.
//
// Thread safety: none for RowNotes, ShownRow is a pure function. Ownership: values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "replay/datasets/rows/row_parser.h"

namespace plumb::replay {

struct RowNotes {
  struct Entry {
    int64_t rows = 0;
    std::string first;  // "file:line: detail" of the first row with one
    bool operator==(const Entry&) const = default;
  };
  std::map<std::string, Entry> entries;  // by RowNote::what
  void Add(const std::vector<RowNote>& notes, const std::string& where);
  std::vector<std::string> Describe() const;  // a line each
};

// A row in one line: roles and the beginnings of its texts.
std::string ShownRow(const ParsedRow& row);

}  // namespace plumb::replay
