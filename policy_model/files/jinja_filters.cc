#include "policy_model/files/jinja_filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "policy_model/files/jinja_methods.h"

namespace plumb::policy_model::jinja {
namespace {

using Filter = Value (*)(const Value& v, const Arguments& a, Limits& limits);
using Test = bool (*)(const Value& v, const Arguments& a, Limits& limits);
using Items = std::vector<Value>;

bool Flag(const Arguments& a, size_t i, std::string_view name, bool otherwise) {
  const Value* v = a.Get(i, name);
  return v == nullptr ? otherwise : v->Truth();
}
int64_t Number(const Arguments& a, size_t i, std::string_view name, int64_t otherwise) {
  const Value* v = a.Get(i, name);
  if (v == nullptr || v->is_none()) return otherwise;
  if (!v->is_int() && !v->is_bool()) TemplateError(std::string(name) + " has to be a whole number");
  return v->as_int();
}
std::string Text(const Value& v, const char* filter, Limits& limits) {
  if (v.is_undefined()) return "";
  if (v.is_function()) TemplateError(std::string("the filter ") + filter + " cannot take a function");
  return ToText(v, limits);
}

Value First(const Value& v, const Arguments&, Limits& limits) {
  const Items items = Iterate(v, limits);
  return items.empty() ? Value::MakeUndefined("first of an empty sequence") : items.front();
}
Value Last(const Value& v, const Arguments&, Limits& limits) {
  const Items items = Iterate(v, limits);
  return items.empty() ? Value::MakeUndefined("last of an empty sequence") : items.back();
}

Value Default(const Value& v, const Arguments& a, Limits&) {
  if (!(v.is_undefined() || (Flag(a, 1, "boolean", false) && !v.Truth()))) return v;
  const Value* otherwise = a.Get(0, "default_value");
  return otherwise != nullptr ? *otherwise : Value::Text("");
}

// A capital after white space and opening brackets only, unlike str.title().
Value Title(const Value& v, const Arguments&, Limits& limits) {
  const std::string text = Text(v, "title", limits);
  std::string out;
  bool begin = true;
  for (size_t at = 0; at < text.size();) {
    const size_t n = CharacterBytes(text, at);
    const std::string_view c = std::string_view(text).substr(at, n);
    const bool separator = WhitespaceBytes(text, at) > 0 || std::string_view("-({[<").find(c) != std::string_view::npos;
    out += begin && !separator ? UpperText(c) : LowerText(c);
    begin = separator;
    at += n;
  }
  limits.SpendText(out.size());
  return Value::Text(std::move(out));
}

Value Join(const Value& v, const Arguments& a, Limits& limits) {
  const Value* separator = a.Get(0, "d");
  const Value* attribute = a.Get(1, "attribute");
  const std::string between = separator == nullptr ? "" : Text(*separator, "join", limits);
  std::string out;
  bool first = true;
  for (const Value& item : Iterate(v, limits)) {
    const std::string part = ToText(attribute == nullptr ? item : LookUpPath(item, Text(*attribute, "join", limits), limits), limits);
    limits.SpendText(part.size() + between.size());
    if (!first) out += between;
    out += part;
    first = false;
  }
  return Value::Text(std::move(out));
}

// A copy of the arguments without the first `n` positional ones.
Arguments Rest(const Arguments& a, size_t n) {
  Arguments out = a;
  out.positional.erase(out.positional.begin(), out.positional.begin() + static_cast<ptrdiff_t>(std::min(n, out.positional.size())));
  return out;
}

std::string NameArgument(const Arguments& a, size_t i, const char* what, bool test) {
  if (!a.positional[i].is_text()) TemplateError(std::string("the name of a ") + what + " has to be a string");
  const std::string& name = a.positional[i].text();
  if (test ? !HasTest(name) : !HasFilter(name)) TemplateError(std::string("there is no ") + what + " '" + name + "'");
  return name;
}

Value SelectBy(const Value& v, const Arguments& a, bool attribute, bool keep, Limits& limits) {
  size_t i = 0;
  std::string path;
  if (attribute) {
    if (a.positional.empty()) TemplateError("selectattr and rejectattr need the name of an attribute");
    path = Text(a.positional[i++], "selectattr", limits);
  }
  const bool has_test = i < a.positional.size();
  const std::string test = has_test ? NameArgument(a, i++, "test", true) : "";
  const Arguments rest = Rest(a, i);
  Items out;
  for (const Value& item : Iterate(v, limits)) {
    const Value seen = attribute ? LookUpPath(item, path, limits) : item;
    if ((has_test ? ApplyTest(test, seen, rest, limits) : seen.Truth()) == keep) out.push_back(item);
  }
  return Value::MakeList(std::move(out));
}

Value Map(const Value& v, const Arguments& a, Limits& limits) {
  Items out;
  if (const Value* attribute = a.Named("attribute")) {
    const std::string path = Text(*attribute, "map", limits);
    const Value* otherwise = a.Named("default");
    for (const Value& item : Iterate(v, limits)) {
      Value found = LookUpPath(item, path, limits);
      out.push_back(found.is_undefined() && otherwise != nullptr ? *otherwise : found);
    }
    return Value::MakeList(std::move(out));
  }
  if (a.positional.empty()) TemplateError("map needs a filter or attribute=");
  const std::string filter = NameArgument(a, 0, "filter", false);
  const Arguments rest = Rest(a, 1);
  for (const Value& item : Iterate(v, limits)) out.push_back(ApplyFilter(filter, item, rest, limits));
  return Value::MakeList(std::move(out));
}

// What jinja compares when it ignores case: texts in lower case, everything else as it is.
Value SortKey(const Value& v, const std::string& path, bool case_sensitive, Limits& limits) {
  Value key = path.empty() ? v : LookUpPath(v, path, limits);
  return !case_sensitive && key.is_text() ? Value::Text(LowerText(key.text())) : key;
}
Value Sort(Items items, const std::string& path, bool case_sensitive, bool reverse, Limits& limits) {
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) keyed.emplace_back(SortKey(item, path, case_sensitive, limits), std::move(item));
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& x, const auto& y) {
    return reverse ? Less(y.first, x.first, limits) : Less(x.first, y.first, limits);
  });
  items.clear();
  for (auto& pair : keyed) items.push_back(std::move(pair.second));
  return Value::MakeList(std::move(items));
}
Value SortFilter(const Value& v, const Arguments& a, Limits& limits) {
  const Value* attribute = a.Get(2, "attribute");
  return Sort(Iterate(v, limits), attribute == nullptr ? "" : Text(*attribute, "sort", limits), Flag(a, 1, "case_sensitive", false),
              Flag(a, 0, "reverse", false), limits);
}
Value DictSort(const Value& v, const Arguments& a, Limits& limits) {
  if (!v.is_dict()) TemplateError("dictsort needs a mapping");
  Items pairs;
  for (const auto& [key, value] : v.dict().items) pairs.push_back(Value::MakeList({Value::Text(key), value}, true));
  const Value* by = a.Get(1, "by");
  const bool by_value = by != nullptr && by->is_text() && by->text() == "value";
  return Sort(std::move(pairs), by_value ? "1" : "0", Flag(a, 0, "case_sensitive", false), Flag(a, 2, "reverse", false), limits);
}
Value Extreme(const Value& v, const Arguments& a, bool largest, Limits& limits) {
  const Value* attribute = a.Get(1, "attribute");
  const std::string path = attribute == nullptr ? "" : Text(*attribute, "min", limits);
  const bool case_sensitive = Flag(a, 0, "case_sensitive", false);
  Value best = Value::MakeUndefined("smallest or largest of an empty sequence"), best_key;
  bool first = true;
  for (const Value& item : Iterate(v, limits)) {
    Value key = SortKey(item, path, case_sensitive, limits);
    if (first || (largest ? Less(best_key, key, limits) : Less(key, best_key, limits))) {
      best = item;
      best_key = std::move(key);
    }
    first = false;
  }
  return best;
}
Value Unique(const Value& v, const Arguments& a, Limits& limits) {
  const Value* attribute = a.Get(1, "attribute");
  const std::string path = attribute == nullptr ? "" : Text(*attribute, "unique", limits);
  Items out, seen;
  for (const Value& item : Iterate(v, limits)) {
    const Value key = SortKey(item, path, Flag(a, 0, "case_sensitive", false), limits);
    if (Contains(Value::MakeList(seen), key, limits)) continue;
    seen.push_back(key);
    out.push_back(item);
  }
  return Value::MakeList(std::move(out));
}

Value ToInt(const Value& v, const Arguments& a, Limits&) {
  const Value otherwise = a.Get(0, "default") != nullptr ? *a.Get(0, "default") : Value::Int(0);
  if (v.is_int() || v.is_bool()) return Value::Int(v.as_int());
  double number = 0;
  if (v.is_float()) {
    number = v.as_float();
  } else if (v.is_text()) {
    const std::string t = StripText(v.text(), nullptr, true, true);
    const char* begin = t.data() + (t.starts_with('+') ? 1 : 0);
    int64_t whole = 0;
    auto [end, error] = std::from_chars(begin, t.data() + t.size(), whole, static_cast<int>(Number(a, 1, "base", 10)) == 16 ? 16 : 10);
    if (error == std::errc() && end == t.data() + t.size()) return Value::Int(whole);
    const auto parsed = std::from_chars(begin, t.data() + t.size(), number);
    if (parsed.ec != std::errc() || parsed.ptr != t.data() + t.size()) return otherwise;
  } else {
    return otherwise;
  }
  if (!(std::fabs(number) < 9e18)) return otherwise;
  return Value::Int(static_cast<int64_t>(number));
}
Value ToFloat(const Value& v, const Arguments& a, Limits&) {
  if (v.is_number()) return Value::Float(v.as_float());
  double number = 0;
  if (v.is_text()) {
    const std::string t = StripText(v.text(), nullptr, true, true);
    const char* begin = t.data() + (t.starts_with('+') ? 1 : 0);
    const auto parsed = std::from_chars(begin, t.data() + t.size(), number);
    if (parsed.ec == std::errc() && parsed.ptr == t.data() + t.size()) return Value::Float(number);
  }
  const Value* otherwise = a.Get(0, "default");
  return otherwise != nullptr ? *otherwise : Value::Float(0);
}
Value Round(const Value& v, const Arguments& a, Limits&) {
  if (!v.is_number()) TemplateError("round needs a number");
  const auto digits = static_cast<double>(std::clamp<int64_t>(Number(a, 0, "precision", 0), -15, 15));
  const Value* method = a.Get(1, "method");
  const std::string how = method != nullptr && method->is_text() ? method->text() : "common";
  const double scale = std::pow(10.0, digits), x = v.as_float() * scale;
  const double rounded = how == "ceil" ? std::ceil(x) : how == "floor" ? std::floor(x) : std::nearbyint(x);
  return Value::Float(rounded / scale);
}

Value Indent(const Value& v, const Arguments& a, Limits& limits) {
  const Value* width = a.Get(0, "width");
  std::string by(4, ' ');
  if (width != nullptr && width->is_text()) by = width->text();
  else if (width != nullptr) {
    const int64_t spaces = Number(a, 0, "width", 4);
    if (spaces > 1000) TemplateError("indent() of more than 1000");
    by.assign(static_cast<size_t>(std::max<int64_t>(spaces, 0)), ' ');
  }
  const bool first = Flag(a, 1, "first", false), blank = Flag(a, 2, "blank", false);
  std::string out;
  const std::string text = Text(v, "indent", limits);
  std::string_view rest = text;
  for (bool begin = true;; begin = false) {
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    if ((begin ? first : true) && (blank || begin || !line.empty())) out += by;
    out += line;
    limits.SpendText(line.size() + by.size());
    if (end == std::string_view::npos) return Value::Text(std::move(out));
    out += '\n';
    rest.remove_prefix(end + 1);
  }
}

Value Escape(const Value& v, const Arguments&, Limits& limits) {
  std::string out;
  for (char c : Text(v, "escape", limits)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&#34;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  limits.SpendText(out.size());
  return Value::Text(std::move(out));
}

Value Sum(const Value& v, const Arguments& a, Limits& limits) {
  const Value* attribute = a.Get(0, "attribute");
  const Value* start = a.Get(1, "start");
  Value total = start != nullptr ? *start : Value::Int(0);
  for (const Value& item : Iterate(v, limits)) {
    const Value x = attribute == nullptr ? item : LookUpPath(item, Text(*attribute, "sum", limits), limits);
    if (!x.is_number() || !total.is_number()) TemplateError("sum needs numbers");
    int64_t whole = 0;
    if (x.is_float() || total.is_float()) total = Value::Float(total.as_float() + x.as_float());
    else if (__builtin_add_overflow(total.as_int(), x.as_int(), &whole)) TemplateError("a sum is too large");
    else total = Value::Int(whole);
  }
  return total;
}

Value Reverse(const Value& v, const Arguments&, Limits& limits) {
  Items items = Iterate(v, limits);
  std::reverse(items.begin(), items.end());
  if (!v.is_text()) return Value::MakeList(std::move(items));
  std::string out;
  for (const Value& c : items) out += c.text();
  return Value::Text(std::move(out));
}

const std::map<std::string, Filter, std::less<>>& Filters() {
  static const std::map<std::string, Filter, std::less<>> filters = {
      {"trim", [](const Value& v, const Arguments& a, Limits& limits) {
         const Value* characters = a.Get(0, "chars");
         const bool given = characters != nullptr && characters->is_text();
         return Value::Text(StripText(Text(v, "trim", limits), given ? &characters->text() : nullptr, true, true));
       }},
      {"upper", [](const Value& v, const Arguments&, Limits& limits) { return Value::Text(UpperText(Text(v, "upper", limits))); }},
      {"lower", [](const Value& v, const Arguments&, Limits& limits) { return Value::Text(LowerText(Text(v, "lower", limits))); }},
      {"capitalize", [](const Value& v, const Arguments&, Limits& limits) { return Value::Text(CapitalizeText(Text(v, "capitalize", limits))); }},
      {"title", Title},
      {"tojson", [](const Value& v, const Arguments& a, Limits& limits) {
         const int64_t indent = Number(a, 0, "indent", -1);
         if (indent > 32) TemplateError("tojson: an indent of more than 32");
         return Value::Text(ToJson(v, static_cast<int>(std::max<int64_t>(indent, -1)), limits));
       }},
      {"length", [](const Value& v, const Arguments&, Limits&) { return Value::Int(Length(v)); }},
      {"count", [](const Value& v, const Arguments&, Limits&) { return Value::Int(Length(v)); }},
      {"join", Join}, {"default", Default}, {"d", Default}, {"first", First}, {"last", Last},
      {"replace", [](const Value& v, const Arguments& a, Limits& limits) {
         if (a.positional.size() < 2) TemplateError("replace needs what to replace and by what");
         return Value::Text(ReplaceText(Text(v, "replace", limits), Text(a.positional[0], "replace", limits),
                                        Text(a.positional[1], "replace", limits), Number(a, 2, "count", -1), limits));
       }},
      {"select", [](const Value& v, const Arguments& a, Limits& limits) { return SelectBy(v, a, false, true, limits); }},
      {"reject", [](const Value& v, const Arguments& a, Limits& limits) { return SelectBy(v, a, false, false, limits); }},
      {"selectattr", [](const Value& v, const Arguments& a, Limits& limits) { return SelectBy(v, a, true, true, limits); }},
      {"rejectattr", [](const Value& v, const Arguments& a, Limits& limits) { return SelectBy(v, a, true, false, limits); }},
      {"map", Map},
      {"list", [](const Value& v, const Arguments&, Limits& limits) { return Value::MakeList(Iterate(v, limits)); }},
      {"string", [](const Value& v, const Arguments&, Limits& limits) { return Value::Text(Text(v, "string", limits)); }},
      {"int", ToInt}, {"float", ToFloat}, {"round", Round},
      {"abs", [](const Value& v, const Arguments&, Limits&) {
         if (!v.is_number()) TemplateError("abs needs a number");
         if (v.is_float()) return Value::Float(std::fabs(v.as_float()));
         if (v.as_int() == INT64_MIN) TemplateError("a number is too large");
         return Value::Int(std::abs(v.as_int()));
       }},
      {"items", [](const Value& v, const Arguments& a, Limits& limits) {
         if (v.is_undefined()) return Value::MakeList({});
         if (!v.is_dict()) TemplateError("items needs a mapping");
         return Attribute(v, "items", limits).function().call(a);
       }},
      {"sort", SortFilter}, {"dictsort", DictSort}, {"unique", Unique}, {"sum", Sum}, {"reverse", Reverse},
      {"min", [](const Value& v, const Arguments& a, Limits& limits) { return Extreme(v, a, false, limits); }},
      {"max", [](const Value& v, const Arguments& a, Limits& limits) { return Extreme(v, a, true, limits); }},
      {"indent", Indent}, {"escape", Escape}, {"e", Escape},
      {"safe", [](const Value& v, const Arguments&, Limits&) { return v; }},
  };
  return filters;
}

const Value& Other(const Arguments& a) {
  if (a.positional.size() != 1) TemplateError("this test takes one value to compare with");
  return a.positional[0];
}
bool Equals(const Value& v, const Arguments& a, Limits& limits) { return Equal(v, Other(a), limits); }
bool NotEquals(const Value& v, const Arguments& a, Limits& limits) { return !Equal(v, Other(a), limits); }
bool IsLess(const Value& v, const Arguments& a, Limits& limits) { return Less(v, Other(a), limits); }
bool IsGreater(const Value& v, const Arguments& a, Limits& limits) { return Less(Other(a), v, limits); }
bool AtMost(const Value& v, const Arguments& a, Limits& limits) { return IsLess(v, a, limits) || Equals(v, a, limits); }
bool AtLeast(const Value& v, const Arguments& a, Limits& limits) { return IsGreater(v, a, limits) || Equals(v, a, limits); }
int64_t Whole(const Value& v) {
  if (!v.is_int() && !v.is_bool()) TemplateError("this test needs a whole number");
  return v.as_int();
}

const std::map<std::string, Test, std::less<>>& Tests() {
  static const std::map<std::string, Test, std::less<>> tests = {
      {"defined", [](const Value& v, const Arguments&, Limits&) { return !v.is_undefined(); }},
      {"undefined", [](const Value& v, const Arguments&, Limits&) { return v.is_undefined(); }},
      {"none", [](const Value& v, const Arguments&, Limits&) { return v.is_none(); }},
      {"string", [](const Value& v, const Arguments&, Limits&) { return v.is_text(); }},
      {"mapping", [](const Value& v, const Arguments&, Limits&) { return v.is_dict() && !v.dict().is_namespace; }},
      {"iterable", [](const Value& v, const Arguments&, Limits&) { return v.is_text() || v.is_list() || v.is_dict() || v.is_undefined(); }},
      {"sequence", [](const Value& v, const Arguments&, Limits&) { return v.is_text() || v.is_list() || v.is_dict() || v.is_undefined(); }},
      {"number", [](const Value& v, const Arguments&, Limits&) { return v.is_number(); }},
      {"integer", [](const Value& v, const Arguments&, Limits&) { return v.is_int(); }},
      {"float", [](const Value& v, const Arguments&, Limits&) { return v.is_float(); }},
      {"boolean", [](const Value& v, const Arguments&, Limits&) { return v.is_bool(); }},
      {"true", [](const Value& v, const Arguments&, Limits&) { return v.is_bool() && v.as_bool(); }},
      {"false", [](const Value& v, const Arguments&, Limits&) { return v.is_bool() && !v.as_bool(); }},
      {"callable", [](const Value& v, const Arguments&, Limits&) { return v.is_function(); }},
      {"upper", [](const Value& v, const Arguments&, Limits& limits) {
         const std::string t = Text(v, "upper", limits);
         return UpperText(t) == t && LowerText(t) != t;
       }},
      {"lower", [](const Value& v, const Arguments&, Limits& limits) {
         const std::string t = Text(v, "lower", limits);
         return LowerText(t) == t && UpperText(t) != t;
       }},
      {"odd", [](const Value& v, const Arguments&, Limits&) { return (Whole(v) & 1) != 0; }},
      {"even", [](const Value& v, const Arguments&, Limits&) { return (Whole(v) & 1) == 0; }},
      {"divisibleby", [](const Value& v, const Arguments& a, Limits&) {
         const int64_t by = Whole(Other(a));
         if (by == 0) TemplateError("division by zero");
         return by == -1 || Whole(v) % by == 0;
       }},
      {"in", [](const Value& v, const Arguments& a, Limits& limits) { return Contains(Other(a), v, limits); }},
      {"equalto", Equals}, {"eq", Equals}, {"==", Equals}, {"sameas", Equals}, {"ne", NotEquals}, {"!=", NotEquals},
      {"lt", IsLess}, {"<", IsLess}, {"lessthan", IsLess}, {"gt", IsGreater}, {">", IsGreater}, {"greaterthan", IsGreater},
      {"le", AtMost}, {"<=", AtMost}, {"ge", AtLeast}, {">=", AtLeast},
  };
  return tests;
}

}  // namespace

bool HasFilter(std::string_view name) { return Filters().contains(name); }
bool HasTest(std::string_view name) { return Tests().contains(name); }

Value ApplyFilter(const std::string& name, const Value& input, const Arguments& arguments, Limits& limits) {
  limits.Spend();
  return Filters().find(name)->second(input, arguments, limits);
}
bool ApplyTest(const std::string& name, const Value& input, const Arguments& arguments, Limits& limits) {
  limits.Spend();
  return Tests().find(name)->second(input, arguments, limits);
}

}  // namespace plumb::policy_model::jinja
