// What became of the rows of a run's data, as counters: "rows/<data>/read", "/used" and
// "/dropped/<why>", where <data> is train, eval, sft or pairs.
//
// Purpose: a run says at its end and in summary.json what of its data was left out and why. Read =
// used + dropped.
// Thread safety: pure functions and a value.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace plumb::run {

inline constexpr char kRows[] = "rows/";

class RowCounts {
 public:
  explicit RowCounts(const std::string& data) : prefix_(kRows + data + "/") {}
  void Read(int64_t rows) { counters_[prefix_ + "read"] += rows; }
  void Used(int64_t rows) { counters_[prefix_ + "used"] += rows; }
  void Dropped(const std::string& why, int64_t rows) {
    if (rows > 0) counters_[prefix_ + "dropped/" + why] += rows;
  }
  const std::map<std::string, int64_t>& counters() const { return counters_; }

 private:
  const std::string prefix_;
  std::map<std::string, int64_t> counters_;
};

// "rows: eval 50 of 50 used; train 97 of 100 used (1 bad_json, 2 overlong)", of those among the
// counters; empty: none.
std::string RowLine(const std::map<std::string, int64_t>& counters);
// {"train": {"read": 100, "used": 97, "dropped": {"overlong": 2, ...}}}.
nlohmann::ordered_json RowsJson(const std::map<std::string, int64_t>& counters);

}  // namespace plumb::run
