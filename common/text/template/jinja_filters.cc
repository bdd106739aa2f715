#include "common/text/template/jinja_filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <map>
#include <utility>

#include "common/base/numbers/number_text.h"
#include "common/text/template/jinja_methods.h"

namespace plumb::jinja {
namespace {

struct Filter {
  const char* parameters;  // as Arguments::Check takes them
  Value (*apply)(const Value& v, const Arguments& a, Limits& limits);
};
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
  if (v.is_function())
    TemplateError(std::string("the filter ") + filter + " cannot take a function");
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
    const bool separator = WhitespaceBytes(text, at) > 0 ||
                           std::string_view("-({[<").find(c) != std::string_view::npos;
    out += begin && !separator ? UpperText(c) : LowerText(c);
    begin = separator;
    at += n;
  }
  limits.SpendText(out.size());
  return Value::Text(std::move(out));
}

// The item's attribute along a path, "a.b.0" or a whole number; jinja goes on with `otherwise` from
// wherever it is undefined.
Value AttributeOf(const Value& item, const Value& path, const Value* otherwise, Limits& limits) {
  if (path.is_int() || path.is_bool()) {
    Value found = Item(item, path, limits);
    return found.is_undefined() && otherwise != nullptr ? *otherwise : found;
  }
  if (!path.is_text())
    TemplateError("the name of an attribute has to be a string or a whole number");
  return LookUpPath(item, path.text(), limits, otherwise);
}
const Value* AttributeArgument(const Arguments& a, size_t i) {
  const Value* attribute = a.Get(i, "attribute");
  return attribute != nullptr && attribute->is_none() ? nullptr : attribute;
}

Value Join(const Value& v, const Arguments& a, Limits& limits) {
  const Value* separator = a.Get(0, "d");
  const Value* attribute = AttributeArgument(a, 1);
  const std::string between = separator == nullptr ? "" : Text(*separator, "join", limits);
  std::string out;
  bool first = true;
  for (const Value& item : Iterate(v, limits)) {
    const std::string part = ToText(
        attribute == nullptr ? item : AttributeOf(item, *attribute, nullptr, limits), limits);
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
  out.positional.erase(
      out.positional.begin(),
      out.positional.begin() + static_cast<ptrdiff_t>(std::min(n, out.positional.size())));
  return out;
}

std::string NameArgument(const Arguments& a, size_t i, const char* what, bool test) {
  if (!a.positional[i].is_text())
    TemplateError(std::string("the name of a ") + what + " has to be a string");
  const std::string& name = a.positional[i].text();
  if (test ? !HasTest(name) : !HasFilter(name))
    TemplateError(std::string("there is no ") + what + " '" + name + "'");
  return name;
}

Value SelectBy(const Value& v, const Arguments& a, bool attribute, bool keep, Limits& limits) {
  size_t i = 0;
  Value path;
  if (attribute) {
    if (a.positional.empty())
      TemplateError("selectattr and rejectattr need the name of an attribute");
    path = a.positional[i++];
  }
  const bool has_test = i < a.positional.size();
  const std::string test = has_test ? NameArgument(a, i++, "test", true) : "";
  const Arguments rest = Rest(a, i);
  if (!has_test && !a.named.empty())
    TemplateError(
        "select, reject, selectattr and rejectattr without a test take no named arguments");
  Items out;
  for (const Value& item : Iterate(v, limits)) {
    const Value seen = attribute ? AttributeOf(item, path, nullptr, limits) : item;
    if ((has_test ? ApplyTest(test, seen, rest, limits) : seen.Truth()) == keep)
      out.push_back(item);
  }
  return Value::MakeList(std::move(out));
}

Value Map(const Value& v, const Arguments& a, Limits& limits) {
  Items out;
  const Value* attribute = a.Named("attribute");
  if (a.positional.empty() && attribute != nullptr) {
    a.Check("map", "filter attribute default");
    for (const Value& item : Iterate(v, limits))
      out.push_back(AttributeOf(item, *attribute, a.Named("default"), limits));
    return Value::MakeList(std::move(out));
  }
  if (a.positional.empty()) TemplateError("map needs a filter or attribute=");
  const std::string filter = NameArgument(a, 0, "filter", false);
  const Arguments rest = Rest(a, 1);
  for (const Value& item : Iterate(v, limits))
    out.push_back(ApplyFilter(filter, item, rest, limits));
  return Value::MakeList(std::move(out));
}

// What jinja compares when it ignores case: texts in lower case, everything else as it is.
Value SortKey(const Value& v, const Value* attribute, bool case_sensitive, Limits& limits) {
  Value key = attribute == nullptr ? v : AttributeOf(v, *attribute, nullptr, limits);
  return !case_sensitive && key.is_text() ? Value::Text(LowerText(key.text())) : key;
}
Value Sort(Items items, const std::vector<Value>& attributes, bool case_sensitive, bool reverse,
           Limits& limits) {
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) {
    Items keys;
    for (const Value& attribute : attributes)
      keys.push_back(SortKey(item, &attribute, case_sensitive, limits));
    Value key = attributes.empty() ? SortKey(item, nullptr, case_sensitive, limits)
                                   : Value::MakeList(std::move(keys));
    keyed.emplace_back(std::move(key), std::move(item));
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& x, const auto& y) {
    return reverse ? Less(y.first, x.first, limits) : Less(x.first, y.first, limits);
  });
  items.clear();
  for (auto& pair : keyed) items.push_back(std::move(pair.second));
  return Value::MakeList(std::move(items));
}
Value SortFilter(const Value& v, const Arguments& a, Limits& limits) {
  std::vector<Value> attributes;
  if (const Value* attribute = AttributeArgument(a, 2);
      attribute != nullptr && attribute->is_text()) {
    const std::string& paths = attribute->text();  // "a,b": by a, then by b
    for (size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
      end = paths.find(',', begin);
      attributes.push_back(
          Value::Text(paths.substr(begin, end == std::string::npos ? end : end - begin)));
    }
  } else if (attribute != nullptr) {
    attributes.push_back(*attribute);
  }
  return Sort(Iterate(v, limits), attributes, Flag(a, 1, "case_sensitive", false),
              Flag(a, 0, "reverse", false), limits);
}
Value DictSort(const Value& v, const Arguments& a, Limits& limits) {
  if (!v.is_dict()) TemplateError("dictsort needs a mapping");
  Items pairs;
  for (const auto& [key, value] : v.dict().items)
    pairs.push_back(Value::MakeList({key, value}, true));
  const Value* by = a.Get(1, "by");
  const std::string name = by == nullptr ? "key" : by->is_text() ? by->text() : "";
  if (name != "key" && name != "value")
    TemplateError("dictsort: by has to be \"key\" or \"value\"");
  return Sort(std::move(pairs), {Value::Int(name == "value" ? 1 : 0)},
              Flag(a, 0, "case_sensitive", false), Flag(a, 2, "reverse", false), limits);
}
Value Extreme(const Value& v, const Arguments& a, bool largest, Limits& limits) {
  const Value* attribute = AttributeArgument(a, 1);
  const bool case_sensitive = Flag(a, 0, "case_sensitive", false);
  Value best = Value::MakeUndefined("smallest or largest of an empty sequence"), best_key;
  bool first = true;
  for (const Value& item : Iterate(v, limits)) {
    Value key = SortKey(item, attribute, case_sensitive, limits);
    if (first || (largest ? Less(best_key, key, limits) : Less(key, best_key, limits))) {
      best = item;
      best_key = std::move(key);
    }
    first = false;
  }
  return best;
}
Value Unique(const Value& v, const Arguments& a, Limits& limits) {
  const Value* attribute = AttributeArgument(a, 1);
  Items out, seen;
  for (const Value& item : Iterate(v, limits)) {
    const Value key = SortKey(item, attribute, Flag(a, 0, "case_sensitive", false), limits);
    if (Contains(Value::MakeList(seen), key, limits)) continue;
    seen.push_back(key);
    out.push_back(item);
  }
  return Value::MakeList(std::move(out));
}

// Rows of `linecount` items; the last is filled up where there is something to fill it with.
Value Batch(const Value& v, const Arguments& a, Limits& limits) {
  const int64_t size = Number(a, 0, "linecount", 0);
  const Value* fill = a.Get(1, "fill_with");
  if (size < 1) TemplateError("batch needs a number of items above 0");
  Items rows, row;
  for (Value& item : Iterate(v, limits)) {
    if (static_cast<int64_t>(row.size()) == size)
      rows.push_back(Value::MakeList(std::exchange(row, {})));
    row.push_back(std::move(item));
  }
  if (!row.empty() && fill != nullptr && !fill->is_none()) {
    limits.Spend(size - static_cast<int64_t>(row.size()));
    while (static_cast<int64_t>(row.size()) < size) row.push_back(*fill);
  }
  if (!row.empty()) rows.push_back(Value::MakeList(std::move(row)));
  return Value::MakeList(std::move(rows));
}

// So many columns, of which the first have one item more where it does not come out even.
Value SliceFilter(const Value& v, const Arguments& a, Limits& limits) {
  const int64_t slices = Number(a, 0, "slices", 0);
  const Value* fill = a.Get(1, "fill_with");
  if (slices < 1) TemplateError("slice needs a number of slices above 0");
  const Items items = Iterate(v, limits);
  limits.Spend(slices);
  const auto n = static_cast<int64_t>(items.size());
  const int64_t each = n / slices, longer = n % slices;
  Items out;
  auto from = items.begin();
  for (int64_t i = 0; i < slices; ++i) {
    Items part(from, from + static_cast<ptrdiff_t>(each + (i < longer ? 1 : 0)));
    from += static_cast<ptrdiff_t>(part.size());
    if (i >= longer && fill != nullptr && !fill->is_none()) part.push_back(*fill);
    out.push_back(Value::MakeList(std::move(part)));
  }
  return Value::MakeList(std::move(out));
}

// Python's int(text, base); false for what is none. Between two digits may stand one underscore.
bool ParseWhole(std::string_view text, int64_t base, int64_t& out) {
  if (base != 0 && (base < 2 || base > 36)) return false;
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const auto prefixed = [&](char letter) {
    return text.size() > 2 && text[0] == '0' && (text[1] | 0x20) == letter;
  };
  bool after_prefix = false;
  for (const auto& [letter, of] : {std::pair('x', 16), std::pair('o', 8), std::pair('b', 2)}) {
    if (!prefixed(letter) || (base != of && base != 0)) continue;
    base = of;
    text.remove_prefix(2);
    after_prefix = true;
    break;
  }
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool between =
        text[i] == '_' && (i > 0 || after_prefix) && i + 1 < text.size() && text[i + 1] != '_';
    if (text[i] == '+' || text[i] == '-') return false;
    if (!between) digits += text[i];
  }
  if (base == 0 && digits.size() > 1 && digits[0] == '0' &&
      digits.find_first_not_of('0') != std::string::npos)
    return false;
  const std::string whole = (negative ? "-" : "") + digits;
  const auto [end, error] = std::from_chars(whole.data(), whole.data() + whole.size(), out,
                                            base == 0 ? 10 : static_cast<int>(base));
  if (error == std::errc::result_out_of_range)
    TemplateError("int: '" + std::string(text.substr(0, 40)) + "' has more than 64 bits");
  return error == std::errc() && end == whole.data() + whole.size();
}

bool ParseFloat(std::string_view text, double& out) {
  if (text.starts_with('+')) text.remove_prefix(text.starts_with("+-") ? 0 : 1);
  const auto number = ParseNumber<double>(text);
  if (number) out = *number;
  return number.has_value();
}

Value ToInt(const Value& v, const Arguments& a, Limits&) {
  const Value otherwise = a.Get(0, "default") != nullptr ? *a.Get(0, "default") : Value::Int(0);
  if (v.is_int() || v.is_bool()) return Value::Int(v.as_int());
  double number = 0;
  if (v.is_float()) {
    number = v.as_float();
  } else if (v.is_text()) {
    const std::string t = StripText(v.text(), nullptr, true, true);
    int64_t whole = 0;
    if (ParseWhole(t, Number(a, 1, "base", 10), whole)) return Value::Int(whole);
    if (!ParseFloat(t, number)) return otherwise;
  } else {
    return otherwise;
  }
  if (!std::isfinite(number)) return otherwise;
  if (!(std::fabs(number) < 9e18)) TemplateError("int: a number has more than 64 bits");
  return Value::Int(static_cast<int64_t>(number));
}
Value ToFloat(const Value& v, const Arguments& a, Limits&) {
  if (v.is_number()) return Value::Float(v.as_float());
  double number = 0;
  if (v.is_text() && ParseFloat(StripText(v.text(), nullptr, true, true), number))
    return Value::Float(number);
  const Value* otherwise = a.Get(0, "default");
  return otherwise != nullptr ? *otherwise : Value::Float(0);
}

// Python's round(): whole numbers stay whole, halves go to the even neighbour, of the number as it
// is and not of its product.
Value RoundCommon(const Value& v, int64_t precision) {
  if (v.is_float()) {
    const double x = v.as_float();
    if (!std::isfinite(x) || precision > 300) return v;
    if (precision < 0) {
      const double unit = std::pow(10.0, static_cast<double>(std::min<int64_t>(-precision, 400)));
      return Value::Float(std::isfinite(unit) ? std::nearbyint(x / unit) * unit
                                              : std::copysign(0.0, x));
    }
    char text[800];
    std::snprintf(text, sizeof text, "%.*f", static_cast<int>(precision), x);
    double out = 0;
    std::from_chars(text, text + std::char_traits<char>::length(text), out);
    return Value::Float(out);
  }
  if (precision >= 0) return Value::Int(v.as_int());
  if (precision < -18) return Value::Int(0);
  int64_t unit = 1;
  for (int64_t i = 0; i < -precision; ++i) unit *= 10;
  const int64_t x = v.as_int(), rest = (x % unit + unit) % unit;
  int64_t down = 0, out = 0;
  const bool over = __builtin_sub_overflow(x, rest, &down);
  const bool up = rest > unit - rest || (rest == unit - rest && (down / unit) % 2 != 0);
  if (over || __builtin_add_overflow(down, up ? unit : 0, &out))
    TemplateError("a number is too large");
  return Value::Int(out);
}
Value Round(const Value& v, const Arguments& a, Limits&) {
  if (!v.is_number()) TemplateError("round needs a number");
  const int64_t precision = Number(a, 0, "precision", 0);
  const Value* method = a.Get(1, "method");
  const std::string how = method == nullptr ? "common" : method->is_text() ? method->text() : "";
  if (how != "common" && how != "ceil" && how != "floor")
    TemplateError("round: method has to be \"common\", \"ceil\" or \"floor\"");
  if (how == "common") return RoundCommon(v, precision);
  const double scale =
                   std::pow(10.0, static_cast<double>(std::clamp<int64_t>(precision, -400, 400))),
               x = v.as_float() * scale;
  return Value::Float((how == "ceil" ? std::ceil(x) : std::floor(x)) / scale);
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
  std::string out = first ? by : "";
  bool begin = true;
  for (const Value& line : SplitLines(Text(v, "indent", limits) + "\n", false, limits)) {
    if (!begin) {
      out += '\n';
      if (blank || !line.text().empty()) out += by;
    }
    out += line.text();
    limits.SpendText(line.text().size() + by.size());
    begin = false;
  }
  return Value::Text(std::move(out));
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
  const Value* attribute = AttributeArgument(a, 0);
  const Value* start = a.Get(1, "start");
  Value total = start != nullptr ? *start : Value::Int(0);
  for (const Value& item : Iterate(v, limits)) {
    const Value x = attribute == nullptr ? item : AttributeOf(item, *attribute, nullptr, limits);
    if (!x.is_number() || !total.is_number()) TemplateError("sum needs numbers");
    int64_t whole = 0;
    if (x.is_float() || total.is_float()) total = Value::Float(total.as_float() + x.as_float());
    else if (__builtin_add_overflow(total.as_int(), x.as_int(), &whole))
      TemplateError("a sum is too large");
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

// transformers' tojson, which takes the arguments of json.dumps.
Value ToJsonFilter(const Value& v, const Arguments& a, Limits& limits) {
  JsonStyle style;
  style.ensure_ascii = Flag(a, 0, "ensure_ascii", false);
  style.sort_keys = Flag(a, 3, "sort_keys", false);
  if (const Value* indent = a.Get(1, "indent"); indent != nullptr && !indent->is_none()) {
    const int64_t spaces = indent->is_text() ? 0 : Number(a, 1, "indent", 0);
    if (spaces > 32 || (indent->is_text() && indent->text().size() > 32))
      TemplateError("tojson: an indent of more than 32");
    style.indent = indent->is_text()
                       ? indent->text()
                       : std::string(static_cast<size_t>(std::max<int64_t>(spaces, 0)), ' ');
    style.item_separator = ",";
  }
  if (const Value* separators = a.Get(2, "separators");
      separators != nullptr && !separators->is_none()) {
    const Items pair = Iterate(*separators, limits);
    if (pair.size() != 2 || !pair[0].is_text() || !pair[1].is_text())
      TemplateError("tojson: separators have to be two strings");
    style.item_separator = pair[0].text();
    style.key_separator = pair[1].text();
  }
  return Value::Text(ToJson(v, style, limits));
}

Value Trim(const Value& v, const Arguments& a, Limits& limits) {
  const Value* characters = a.Get(0, "chars");
  const bool given = characters != nullptr && !characters->is_none();
  if (given && !characters->is_text()) TemplateError("trim: chars has to be a string");
  return Value::Text(
      StripText(Text(v, "trim", limits), given ? &characters->text() : nullptr, true, true));
}

Value Replace(const Value& v, const Arguments& a, Limits& limits) {
  const Value *from = a.Get(0, "old"), *to = a.Get(1, "new");
  if (from == nullptr || to == nullptr) TemplateError("replace needs what to replace and by what");
  return Value::Text(ReplaceText(Text(v, "replace", limits), Text(*from, "replace", limits),
                                 Text(*to, "replace", limits), Number(a, 2, "count", -1), limits));
}

const std::map<std::string, Filter, std::less<>>& Filters() {
  static const std::map<std::string, Filter, std::less<>> filters = {
      {"trim", {"chars", Trim}},
      {"upper",
       {"", [](const Value& v, const Arguments&,
               Limits& limits) { return Value::Text(UpperText(Text(v, "upper", limits))); }}},
      {"lower",
       {"", [](const Value& v, const Arguments&,
               Limits& limits) { return Value::Text(LowerText(Text(v, "lower", limits))); }}},
      {"capitalize",
       {"",
        [](const Value& v, const Arguments&, Limits& limits) {
          return Value::Text(CapitalizeText(Text(v, "capitalize", limits)));
        }}},
      {"title", {"", Title}},
      {"tojson", {"ensure_ascii indent separators sort_keys", ToJsonFilter}},
      {"length",
       {"", [](const Value& v, const Arguments&, Limits&) { return Value::Int(Length(v)); }}},
      {"count",
       {"", [](const Value& v, const Arguments&, Limits&) { return Value::Int(Length(v)); }}},
      {"join", {"d attribute", Join}},
      {"default", {"default_value boolean", Default}},
      {"d", {"default_value boolean", Default}},
      {"first", {"", First}},
      {"last", {"", Last}},
      {"replace", {"old new count", Replace}},
      {"select",
       {"... **", [](const Value& v, const Arguments& a,
                     Limits& limits) { return SelectBy(v, a, false, true, limits); }}},
      {"reject",
       {"... **", [](const Value& v, const Arguments& a,
                     Limits& limits) { return SelectBy(v, a, false, false, limits); }}},
      {"selectattr",
       {"... **", [](const Value& v, const Arguments& a,
                     Limits& limits) { return SelectBy(v, a, true, true, limits); }}},
      {"rejectattr",
       {"... **", [](const Value& v, const Arguments& a,
                     Limits& limits) { return SelectBy(v, a, true, false, limits); }}},
      {"map", {"... **", Map}},
      {"list",
       {"", [](const Value& v, const Arguments&,
               Limits& limits) { return Value::MakeList(Iterate(v, limits)); }}},
      {"string",
       {"", [](const Value& v, const Arguments&,
               Limits& limits) { return Value::Text(Text(v, "string", limits)); }}},
      {"int", {"default base", ToInt}},
      {"float", {"default", ToFloat}},
      {"round", {"precision method", Round}},
      {"abs",
       {"",
        [](const Value& v, const Arguments&, Limits&) {
          if (!v.is_number()) TemplateError("abs needs a number");
          if (v.is_float()) return Value::Float(std::fabs(v.as_float()));
          if (v.as_int() == INT64_MIN) TemplateError("a number is too large");
          return Value::Int(std::abs(v.as_int()));
        }}},
      {"items",
       {"",
        [](const Value& v, const Arguments& a, Limits& limits) {
          if (v.is_undefined()) return Value::MakeList({});
          if (!v.is_dict()) TemplateError("items needs a mapping");
          return Attribute(v, "items", limits).function().call(a);
        }}},
      {"sort", {"reverse case_sensitive attribute", SortFilter}},
      {"dictsort", {"case_sensitive by reverse", DictSort}},
      {"unique", {"case_sensitive attribute", Unique}},
      {"sum", {"attribute start", Sum}},
      {"reverse", {"", Reverse}},
      {"batch", {"linecount fill_with", Batch}},
      {"slice", {"slices fill_with", SliceFilter}},
      {"min",
       {"case_sensitive attribute", [](const Value& v, const Arguments& a,
                                       Limits& limits) { return Extreme(v, a, false, limits); }}},
      {"max",
       {"case_sensitive attribute", [](const Value& v, const Arguments& a,
                                       Limits& limits) { return Extreme(v, a, true, limits); }}},
      {"indent", {"width first blank", Indent}},
      {"escape", {"", Escape}},
      {"e", {"", Escape}},
      {"safe", {"", [](const Value& v, const Arguments&, Limits&) { return v; }}},
  };
  return filters;
}

}  // namespace

bool HasFilter(std::string_view name) { return Filters().contains(name); }

Value ApplyFilter(const std::string& name, const Value& input, const Arguments& arguments,
                  Limits& limits) {
  limits.Spend();
  const Filter& filter = Filters().find(name)->second;
  arguments.Check(name, filter.parameters);
  return filter.apply(input, arguments, limits);
}

}  // namespace plumb::jinja
