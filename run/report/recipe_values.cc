#include "run/report/recipe_values.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "common/base/numbers/number_text.h"

namespace plumb::run {
namespace {

std::optional<RecipeValue> ValueOf(std::string_view text) {
  if (text == "true" || text == "false") return RecipeValue(text == "true");
  if (text.empty()) return std::nullopt;
  if (text.front() == '"') {
    // What a TOML string escapes here, JSON escapes alike.
    const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!json.is_string()) return std::nullopt;
    return RecipeValue(json.get<std::string>());
  }
  if (text.front() == '[' || text.front() == '{') return RecipeValue(std::string(text));
  if (const auto number = ParseNumber<double>(text)) return RecipeValue(*number);
  return std::nullopt;
}

}  // namespace

RecipeValues ReadRecipeValues(std::string_view toml) {
  RecipeValues out;
  std::string table;
  std::map<std::string, int64_t> entries;  // of tables that come several times
  for (size_t at = 0; at < toml.size();) {
    size_t end = toml.find('\n', at);
    if (end == std::string_view::npos) end = toml.size();
    const std::string_view line = toml.substr(at, end - at);
    at = end + 1;
    if (line.starts_with("[[") && line.ends_with("]]")) {
      table = line.substr(2, line.size() - 4);
      table += "." + std::to_string(entries[table]++);
    } else if (line.starts_with("[") && line.ends_with("]") && !line.ends_with("]]")) {
      table = line.substr(1, line.size() - 2);
    } else if (const size_t equals = line.find(" = "); equals != std::string_view::npos) {
      const std::string name(line.substr(0, equals));
      if (name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != std::string::npos)
        continue;
      if (auto value = ValueOf(line.substr(equals + 3)))
        out[table.empty() ? name : table + "." + name] = std::move(*value);
    }
  }
  return out;
}

std::string TextOf(const RecipeValues& values, const std::string& name) {
  const auto found = values.find(name);
  const auto* text = found == values.end() ? nullptr : std::get_if<std::string>(&found->second);
  return text ? *text : "";
}

double NumberOf(const RecipeValues& values, const std::string& name, double otherwise) {
  const auto found = values.find(name);
  const auto* number = found == values.end() ? nullptr : std::get_if<double>(&found->second);
  return number ? *number : otherwise;
}

}  // namespace plumb::run
