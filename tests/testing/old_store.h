// Records as Plumb wrote them before a group was a sealed body with scores beside it
// (tests/golden/store_before_bodies.txt: family, key and value in hex, one record a line, made by
// that version's Store).
#pragma once

#include <fstream>
#include <string>
#include <vector>

#include "tests/testing/paths.h"

namespace plumb::testing {

struct OldRecord {
  std::string family, key, value;
};

inline std::string FromHex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return out;
}

inline std::vector<OldRecord> OldStoreRecords() {
  std::ifstream in(SourcePath("tests/golden/store_before_bodies.txt"));
  std::vector<OldRecord> records;
  for (std::string family, key, value; in >> family >> key >> value;)
    records.push_back({family, FromHex(key), FromHex(value)});
  return records;
}

}  // namespace plumb::testing
