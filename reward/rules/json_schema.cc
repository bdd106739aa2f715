#include "reward/rules/json_schema.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "common/record/json_text.h"
#include "common/text/unicode.h"
#include "common/text/words.h"
#include "reward/maths/answer.h"
#include "reward/rules/linear_regex.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;

constexpr int kDepth = 64;

[[noreturn]] void Wrong(const std::string& place, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message,
              "schema at '" + (place.empty() ? "/" : place) + "'");
}

bool IsInteger(const Json& value) {
  return value.is_number_integer() ||
         (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>());
}

bool HasType(const Json& value, const std::string& type) {
  if (type == "integer") return IsInteger(value);
  if (type == "number") return value.is_number();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  return type == "array" ? value.is_array() : value.is_object();
}

int64_t Characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

bool IsMultiple(double value, double step) {
  const double times = value / step;
  return std::isfinite(times) &&
         std::abs(times - std::round(times)) <= 1e-9 * std::max(1.0, std::abs(times));
}

double Number(const Json& value, const std::string& place) {
  if (!value.is_number()) Wrong(place, "has to be a number");
  return value.get<double>();
}

int64_t Size(const Json& value, const std::string& place) {
  if (!IsInteger(value) || value.get<double>() < 0 || value.get<double>() > 1e15)
    Wrong(place, "has to be a whole number from 0 on");
  return static_cast<int64_t>(value.get<double>());
}

}  // namespace

// One schema. Each test is a check of its own and is made only on values it speaks about.
struct JsonSchema::Node {
  struct Test {
    std::function<bool(const Json&)> applies;
    std::function<bool(const Json&, Checks*)> holds;
  };
  std::vector<Test> tests;
  std::map<std::string, std::unique_ptr<Node>> properties;
  std::unique_ptr<Node> other_properties;  // additionalProperties
  std::vector<std::unique_ptr<Node>> first_items;
  std::unique_ptr<Node> items;
  std::vector<std::unique_ptr<Node>> branches;  // kept for the tests that walk them
  bool never = false;                           // the schema false
};

JsonSchema::JsonSchema(const Json& schema) : root_(Compile(schema, "", 0)) {}
JsonSchema::~JsonSchema() = default;
JsonSchema::JsonSchema(JsonSchema&&) noexcept = default;

std::unique_ptr<JsonSchema::Node> JsonSchema::Compile(const Json& schema, const std::string& place,
                                                      int depth) {
  auto node = std::make_unique<Node>();
  if (depth > kDepth) Wrong(place, "is nested deeper than " + std::to_string(kDepth));
  if (schema.is_boolean()) {
    node->never = !schema.get<bool>();
    return node;
  }
  if (!schema.is_object()) Wrong(place, "a schema is an object, true or false");
  const auto is = [](bool (Json::*kind)() const noexcept) {
    return [kind](const Json& v) { return (v.*kind)(); };
  };
  const auto any = [](const Json&) { return true; };
  const auto number = [&](auto compare, double limit) {
    node->tests.push_back({is(&Json::is_number), [=](const Json& v, Checks*) {
                             return compare(v.get<double>(), limit);
                           }});
  };
  const auto size = [&](bool (Json::*kind)() const noexcept, bool least, int64_t limit) {
    node->tests.push_back({is(kind), [=](const Json& v, Checks*) {
                             const int64_t n = v.is_string()
                                                   ? Characters(v.get_ref<const std::string&>())
                                                   : static_cast<int64_t>(v.size());
                             return least ? n >= limit : n <= limit;
                           }});
  };
  const auto schemas = [&](const Json& list, const std::string& at) {
    if (!list.is_array() || list.empty()) Wrong(at, "has to be a list of schemas");
    std::vector<const Node*> nodes;
    for (size_t i = 0; i < list.size(); ++i) {
      node->branches.push_back(Compile(list[i], at + "/" + std::to_string(i), depth + 1));
      nodes.push_back(node->branches.back().get());
    }
    return nodes;
  };
  static const std::set<std::string> annotations = {"$schema",     "$comment", "title",
                                                    "description", "default",  "examples",
                                                    "deprecated",  "readOnly", "writeOnly"};
  for (const auto& [key, value] : schema.items()) {
    const std::string at = place + "/" + key;
    if (annotations.contains(key)) continue;
    if (key == "type") {
      const Json names = value.is_array() ? value : Json::array({value});
      static const std::set<std::string> known = {"null",   "boolean", "object", "array",
                                                  "number", "string",  "integer"};
      std::vector<std::string> types;
      for (const Json& name : names) {
        if (!name.is_string() || !known.contains(name.get<std::string>()))
          Wrong(at, "unknown type " + name.dump());
        types.push_back(name.get<std::string>());
      }
      if (types.empty()) Wrong(at, "names no type");
      node->tests.push_back({any, [types](const Json& v, Checks*) {
                               return std::any_of(types.begin(), types.end(),
                                                  [&](const auto& t) { return HasType(v, t); });
                             }});
    } else if (key == "enum" || key == "const") {
      if (key == "enum" && !value.is_array()) Wrong(at, "has to be a list");
      const Json allowed = key == "enum" ? value : Json::array({value});
      node->tests.push_back({any, [allowed](const Json& v, Checks*) {
                               return std::find(allowed.begin(), allowed.end(), v) != allowed.end();
                             }});
    } else if (key == "minimum") {
      number(std::greater_equal<double>(), Number(value, at));
    } else if (key == "maximum") {
      number(std::less_equal<double>(), Number(value, at));
    } else if (key == "exclusiveMinimum") {
      number(std::greater<double>(), Number(value, at));
    } else if (key == "exclusiveMaximum") {
      number(std::less<double>(), Number(value, at));
    } else if (key == "multipleOf") {
      if (!(Number(value, at) > 0)) Wrong(at, "has to be above 0");
      number(IsMultiple, Number(value, at));
    } else if (key == "minLength" || key == "maxLength") {
      size(&Json::is_string, key == "minLength", Size(value, at));
    } else if (key == "minItems" || key == "maxItems") {
      size(&Json::is_array, key == "minItems", Size(value, at));
    } else if (key == "minProperties" || key == "maxProperties") {
      size(&Json::is_object, key == "minProperties", Size(value, at));
    } else if (key == "pattern") {
      if (!value.is_string()) Wrong(at, "has to be a text");
      std::string error;
      const LinearRegex regex = LinearRegex::Compile(value.get<std::string>(), &error);
      if (!error.empty()) Wrong(at, "the pattern " + error);
      node->tests.push_back({is(&Json::is_string), [regex](const Json& v, Checks*) {
                               return regex.Find(v.get_ref<const std::string&>());
                             }});
    } else if (key == "required") {
      if (!value.is_array()) Wrong(at, "has to be a list of names");
      for (const Json& name : value) {
        if (!name.is_string()) Wrong(at, "has to be a list of names");
        node->tests.push_back(
            {is(&Json::is_object),
             [n = name.get<std::string>()](const Json& v, Checks*) { return v.contains(n); }});
      }
    } else if (key == "uniqueItems") {
      if (!value.is_boolean()) Wrong(at, "has to be true or false");
      if (!value.get<bool>()) continue;
      node->tests.push_back({is(&Json::is_array), [](const Json& v, Checks*) {
                               return std::set<Json>(v.begin(), v.end()).size() == v.size();
                             }});
    } else if (key == "properties") {
      if (!value.is_object()) Wrong(at, "has to be an object of schemas");
      for (const auto& [name, inner] : value.items()) {
        node->properties[name] = Compile(inner, at + "/" + name, depth + 1);
      }
    } else if (key == "additionalProperties") {
      node->other_properties = Compile(value, at, depth + 1);
    } else if (key == "items") {
      node->items = Compile(value, at, depth + 1);
    } else if (key == "prefixItems") {
      if (!value.is_array()) Wrong(at, "has to be a list of schemas");
      for (size_t i = 0; i < value.size(); ++i) {
        node->first_items.push_back(Compile(value[i], at + "/" + std::to_string(i), depth + 1));
      }
    } else if (key == "not") {
      node->branches.push_back(Compile(value, at, depth + 1));
      node->tests.push_back({any, [inner = node->branches.back().get()](const Json& v, Checks*) {
                               return !Walk(*inner, v).valid();
                             }});
    } else if (key == "allOf" || key == "anyOf" || key == "oneOf") {
      const std::vector<const Node*> nodes = schemas(value, at);
      const size_t least = key == "allOf" ? nodes.size() : 1,
                   most = key == "oneOf" ? 1 : nodes.size();
      node->tests.push_back({any, [=](const Json& v, Checks*) {
                               size_t valid = 0;
                               for (const Node* inner : nodes) valid += Walk(*inner, v).valid();
                               return valid >= least && valid <= most;
                             }});
    } else {
      Wrong(at,
            "the keyword '" + key + "' is not one that is checked (docs/rewards.md lists them)");
    }
  }
  return node;
}

JsonSchema::Checks JsonSchema::Walk(const Node& node, const Json& value) {
  Checks checks;
  if (node.never) return {.held = 0, .made = 1};
  for (const Node::Test& test : node.tests) {
    if (!test.applies(value)) continue;
    ++checks.made;
    checks.held += test.holds(value, &checks);
  }
  const auto inside = [&](const Node& inner, const Json& child) {
    const Checks c = Walk(inner, child);
    checks.held += c.held;
    checks.made += c.made;
  };
  if (value.is_object()) {
    for (const auto& [name, child] : value.items()) {
      if (const auto it = node.properties.find(name); it != node.properties.end()) {
        inside(*it->second, child);
      } else if (node.other_properties) {
        inside(*node.other_properties, child);
      }
    }
  } else if (value.is_array()) {
    for (size_t i = 0; i < value.size(); ++i) {
      if (i < node.first_items.size()) {
        inside(*node.first_items[i], value[i]);
      } else if (node.items) {
        inside(*node.items, value[i]);
      }
    }
  }
  return checks;
}

JsonSchema::Checks JsonSchema::Check(const Json& document) const { return Walk(*root_, document); }

namespace {

// The document within a completion; empty: there is none.
std::string_view Document(std::string_view text, const std::string& where) {
  if (where == "whole") return text;
  const std::string_view open = where == "answer" ? "<answer>" : "```",
                         close = where == "answer" ? "</answer>" : "```";
  const size_t end = text.rfind(close);
  if (end == std::string_view::npos || end == 0) return "";
  const size_t begin = text.rfind(open, end - 1);
  if (begin == std::string_view::npos || begin + open.size() > end) return "";
  std::string_view inside = text.substr(begin + open.size(), end - begin - open.size());
  if (where == "fence") {  // the rest of the fence's first line names a language
    const size_t line = inside.find('\n');
    inside = line == std::string_view::npos ? inside : inside.substr(line + 1);
  }
  return inside;
}

}  // namespace

RuleParts MakeJsonSchema(const configs::RewardPartConfig& part) {
  const RuleOptions args(part, {"schema", "where", "partial"});
  if (args.has("schema") == !part.path.empty()) {
    Refuse(part, "needs one schema: args = [\"schema={...}\"] or path = \"schema.json\"");
  }
  const std::string text = args.has("schema") ? args.Text("schema") : ReadRuleFile(part, part.path);
  if (TooDeep(text, 4 * kDepth)) Refuse(part, "the schema is nested too deep");
  const Json parsed = Json::parse(text, nullptr, false);
  if (parsed.is_discarded()) Refuse(part, "the schema is no JSON");
  std::shared_ptr<const JsonSchema> schema;
  try {
    schema = std::make_shared<const JsonSchema>(parsed);
  } catch (const Error& error) {
    Refuse(part, error.what());
  }
  const std::string where = args.Choice("where", {"whole", "answer", "fence"});
  const bool partial = args.Flag("partial");
  const auto body = [=](std::string_view completion, const Trajectory&, const Prompt&) {
    const std::string_view document = Document(AfterThinking(completion).value_or(""), where);
    if (TooDeep(document, 512)) return PartScore::Of(0);
    const Json value = Json::parse(document, nullptr, false);
    if (value.is_discarded()) return PartScore::Of(0);
    const JsonSchema::Checks checks = schema->Check(value);
    if (checks.valid()) return PartScore::Of(1);
    return PartScore::Of(
        partial ? static_cast<double>(checks.held) / static_cast<double>(checks.made) : 0);
  };
  return RuleParts(body, args.has("schema") ? "" : text);
}

}  // namespace plumb::reward
