#include "run/session/row_counts.h"

namespace plumb::run {

using Json = nlohmann::ordered_json;

Json RowsJson(const std::map<std::string, int64_t>& counters) {
  constexpr char kDropped[] = "dropped/";
  Json out = Json::object();
  for (const auto& [name, n] : counters) {
    if (!name.starts_with(kRows)) continue;
    const std::string rest = name.substr(sizeof kRows - 1);
    const std::string data = rest.substr(0, rest.find('/')), what = rest.substr(data.size() + 1);
    Json& of = out[data];
    if (of.is_null()) of = {{"read", 0}, {"used", 0}, {"dropped", Json::object()}};
    if (what.starts_with(kDropped)) of["dropped"][what.substr(sizeof kDropped - 1)] = n;
    else of[what] = n;
  }
  return out;
}

std::string RowLine(const std::map<std::string, int64_t>& counters) {
  std::string line;
  const Json rows = RowsJson(counters);
  for (const auto& [data, of] : rows.items()) {
    line += (line.empty() ? "rows: " : "; ") + data + " " +
            std::to_string(of["used"].get<int64_t>()) + " of " +
            std::to_string(of["read"].get<int64_t>()) + " used";
    std::string dropped;
    for (const auto& [why, n] : of["dropped"].items()) {
      dropped += (dropped.empty() ? "" : ", ") + std::to_string(n.get<int64_t>()) + " " + why;
    }
    if (!dropped.empty()) line += " (" + dropped + ")";
  }
  return line;
}

}  // namespace plumb::run
