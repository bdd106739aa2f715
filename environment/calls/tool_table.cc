#include "environment/calls/tool_table.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/record/json_text.h"

namespace plumb::environment {
namespace {

using Json = nlohmann::json;
constexpr int kDepth = 64;

bool Is(const Json& value, const std::string& type) {
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "number") return value.is_number();
  if (type == "integer") {
    return value.is_number_integer() ||
           (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>());
  }
  return true;  // a type that is not JSON's is the tool's own affair
}

std::string Text(const Json& value) { return Shown(DumpJson(value), 60); }

// The number behind `key`; false: none.
bool NumberOf(const Json& schema, const char* key, double* out) {
  const auto it = schema.find(key);
  if (it == schema.end() || !it->is_number()) return false;
  *out = it->get<double>();
  return true;
}

Problem CheckSize(const Json& schema, size_t size, const char* least, const char* most,
                  const std::string& place, const std::string& unit) {
  double bound = 0;
  if (NumberOf(schema, least, &bound) && static_cast<double>(size) < bound)
    return place + " has " + std::to_string(size) + unit + ", at least " +
           std::to_string(static_cast<int64_t>(bound)) + " are asked for";
  if (NumberOf(schema, most, &bound) && static_cast<double>(size) > bound)
    return place + " has " + std::to_string(size) + unit + ", at most " +
           std::to_string(static_cast<int64_t>(bound)) + " are allowed";
  return std::nullopt;
}

Problem CheckObject(const Json& schema, const Json& value, const std::string& place, int depth) {
  const std::string within = place == "arguments" ? "" : place + ".";
  if (const auto required = schema.find("required");
      required != schema.end() && required->is_array()) {
    for (const Json& name : *required) {
      if (name.is_string() && !value.contains(name.get<std::string>()))
        return "'" + within + name.get<std::string>() + "' is missing";
    }
  }
  const auto properties = schema.find("properties");
  const bool known = properties != schema.end() && properties->is_object();
  const auto additional = schema.find("additionalProperties");
  for (const auto& [name, inner] : value.items()) {
    if (known && properties->contains(name)) {
      if (Problem wrong = CheckValue((*properties)[name], inner, "'" + within + name + "'", depth))
        return wrong;
    } else if (additional != schema.end() && additional->is_boolean() && !additional->get<bool>()) {
      return "'" + within + Shown(name, 60) + "' is no argument that it takes";
    }
  }
  return std::nullopt;
}

}  // namespace

Problem CheckValue(const Json& schema, const Json& value, const std::string& place, int depth) {
  if (!schema.is_object() || depth > kDepth) return std::nullopt;
  if (const auto any = schema.find("anyOf"); any != schema.end() && any->is_array()) {
    Problem first;
    for (const Json& one : *any) {
      Problem wrong = CheckValue(one, value, place, depth + 1);
      if (!wrong) return std::nullopt;
      if (!first) first = wrong;
    }
    if (first) return first;
  }
  if (const auto type = schema.find("type"); type != schema.end()) {
    std::vector<std::string> wanted;
    for (const Json& one : type->is_array() ? *type : Json::array({*type})) {
      if (one.is_string()) wanted.push_back(one.get<std::string>());
    }
    // OpenAPI's way to say that null will do.
    const auto nullable = schema.find("nullable");
    const bool null = value.is_null() && nullable != schema.end() && *nullable == true;
    if (!null && !wanted.empty() &&
        std::none_of(wanted.begin(), wanted.end(), [&](const auto& t) { return Is(value, t); })) {
      std::string types;
      for (const std::string& t : wanted) types += (types.empty() ? "" : " or ") + t;
      return place + " has to be of type " + types + ", not " + Text(value);
    }
  }
  if (const auto allowed = schema.find("enum"); allowed != schema.end() && allowed->is_array()) {
    if (std::find(allowed->begin(), allowed->end(), value) == allowed->end())
      return place + " has to be one of " + Text(*allowed) + ", not " + Text(value);
  }
  if (const auto constant = schema.find("const"); constant != schema.end() && *constant != value)
    return place + " has to be " + Text(*constant) + ", not " + Text(value);
  double bound = 0;
  if (value.is_number()) {
    if (NumberOf(schema, "minimum", &bound) && value.get<double>() < bound)
      return place + " has to be " + Text(schema["minimum"]) + " or more, not " + Text(value);
    if (NumberOf(schema, "maximum", &bound) && value.get<double>() > bound)
      return place + " has to be " + Text(schema["maximum"]) + " or less, not " + Text(value);
  }
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    const auto characters = static_cast<size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
    if (Problem p = CheckSize(schema, characters, "minLength", "maxLength", place, " characters"))
      return p;
  }
  if (value.is_array()) {
    if (Problem p = CheckSize(schema, value.size(), "minItems", "maxItems", place, " items"))
      return p;
    if (const auto items = schema.find("items"); items != schema.end()) {
      for (size_t i = 0; i < value.size(); ++i) {
        const std::string at = place + "[" + std::to_string(i) + "]";
        if (Problem wrong = CheckValue(*items, value[i], at, depth + 1)) return wrong;
      }
    }
  }
  if (value.is_object()) return CheckObject(schema, value, place, depth + 1);
  return std::nullopt;
}

ToolTable::ToolTable() : parameters_(std::make_unique<std::vector<Json>>()) {}
ToolTable::~ToolTable() = default;
ToolTable::ToolTable(ToolTable&&) noexcept = default;
ToolTable& ToolTable::operator=(ToolTable&&) noexcept = default;

ToolTable::ToolTable(std::string_view json) : ToolTable() {
  if (json.empty()) return;
  const auto refuse = [](const std::string& what) {
    throw Error(ErrorCode::kInvalidArgument, what, "tools");
  };
  if (TooDeep(json, kDepth)) refuse("the list of tools is nested too deep");
  const auto list = nlohmann::ordered_json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!list.is_array()) refuse("the tools are no JSON array of schemas: " + Shown(json, 80));
  nlohmann::ordered_json outer = nlohmann::ordered_json::array();
  for (const auto& entry : list) {
    const auto& tool = entry.is_object() && entry.contains("function") ? entry["function"] : entry;
    if (!tool.is_object() || !tool.contains("name") || !tool["name"].is_string() ||
        tool["name"].get_ref<const std::string&>().empty()) {
      refuse("a tool without a name: " + Shown(DumpJson(entry), 80));
    }
    const std::string name = tool["name"].get<std::string>();
    if (std::find(names_.begin(), names_.end(), name) != names_.end())
      refuse("two tools are called '" + name + "'");
    Json parameters = Json::object();
    if (tool.contains("parameters")) parameters = Json::parse(DumpJson(tool["parameters"]));
    if (!parameters.is_object()) refuse("tool '" + name + "': its parameters are no JSON object");
    names_.push_back(name);
    parameters_->push_back(std::move(parameters));
    outer.push_back({{"type", "function"}, {"function", tool}});
  }
  if (!outer.empty()) json_ = DumpJson(outer);
}

ToolCall ToolTable::Typed(ToolCall call) const {
  const auto it = std::find(names_.begin(), names_.end(), call.name);
  if (!call.spelled || it == names_.end()) return call;
  const Json& schema = (*parameters_)[static_cast<size_t>(it - names_.begin())];
  const auto properties = schema.find("properties");
  auto arguments =
      nlohmann::ordered_json::parse(call.arguments, nullptr, /*allow_exceptions=*/false);
  call.spelled = false;
  if (properties == schema.end() || !properties->is_object() || !arguments.is_object()) return call;
  for (auto& [name, value] : arguments.items()) {
    const auto inner = properties->find(name);
    if (inner == properties->end() || !inner->is_object() || !value.is_string()) continue;
    const std::string text = value.get<std::string>();
    if (!CheckValue(*inner, Json(text), "")) continue;
    Json meant = TooDeep(text, kDepth) ? Json(text) : Json::parse(text, nullptr, false);
    if (text == "True" || text == "False") meant = text == "True";
    if (text == "None") meant = nullptr;
    // What fits neither way is told of as what it looks like, unless a text was wanted.
    const auto type = inner->find("type");
    if (meant.is_discarded() || (type != inner->end() && *type == "string")) continue;
    value = nlohmann::ordered_json::parse(meant.dump());
  }
  call.arguments = DumpJson(arguments);
  return call;
}

Problem ToolTable::Check(const ToolCall& call) const {
  const auto it = std::find(names_.begin(), names_.end(), call.name);
  if (it == names_.end()) {
    std::string there;
    for (const std::string& name : names_) there += (there.empty() ? "" : ", ") + name;
    return "there is no tool '" + Shown(call.name, 60) +
           "'; there is: " + (there.empty() ? "none" : there);
  }
  const Json arguments = Json::parse(call.arguments, nullptr, /*allow_exceptions=*/false);
  return CheckValue((*parameters_)[static_cast<size_t>(it - names_.begin())], arguments,
                    "arguments");
}

}  // namespace plumb::environment
