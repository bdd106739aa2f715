#include "common/text/template/jinja_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "common/base/error.h"
#include "common/text/unicode.h"

namespace plumb::jinja {
namespace {

[[noreturn]] void Fail(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "chat template: " + what);
}

void CheckDepth(int depth) {
  if (depth > kMaxValueDepth)
    Fail("a value is nested deeper than " + std::to_string(kMaxValueDepth));
}

// Python's repr of a float: the shortest digits that read back, ".0" on whole numbers, exponent
// from 1e16 and below 1e-4.
std::string FloatText(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v > 0 ? "inf" : "-inf";
  char buffer[64];
  const double size = std::fabs(v);
  const bool scientific = size != 0 && (size >= 1e16 || size < 1e-4);
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, v,
                    scientific ? std::chars_format::scientific : std::chars_format::fixed)
          .ptr;
  std::string out(buffer, end);
  if (!scientific && out.find('.') == std::string::npos) out += ".0";
  return out;
}

std::string QuotedRepr(std::string_view text) {
  const char quote =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"'
                                                                                            : '\'';
  std::string out(1, quote);
  for (char c : text) {
    if (c == quote || c == '\\') out += '\\';
    if (c == '\n') out += "\\n";
    else if (c == '\r') out += "\\r";
    else if (c == '\t') out += "\\t";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned char>(c));
      out += hex;
    } else out += c;
  }
  return out + quote;
}

void AppendUnit(std::string& out, uint32_t unit) {
  char hex[16];
  std::snprintf(hex, sizeof hex, "\\u%04x", unit);
  out += hex;
}

// \uXXXX for the character at `at`, with a pair of surrogates where it needs one; bytes that are
// none stand for U+FFFD.
void AppendEscaped(std::string& out, std::string_view text, size_t at, size_t bytes) {
  const Character c = DecodeUtf8(text.substr(at, bytes), 0);
  const uint32_t code = c.code == kNotACharacter ? 0xFFFD : static_cast<uint32_t>(c.code);
  if (code < 0x10000) return AppendUnit(out, code);
  AppendUnit(out, 0xD800 + ((code - 0x10000) >> 10));
  AppendUnit(out, 0xDC00 + ((code - 0x10000) & 0x3FF));
}

std::string QuotedJson(std::string_view text, bool ensure_ascii) {
  std::string out = "\"";
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    const size_t bytes = static_cast<unsigned char>(c) < 0x80 ? 1 : CharacterBytes(text, at);
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          AppendUnit(out, static_cast<unsigned char>(c));
        } else if (ensure_ascii && static_cast<unsigned char>(c) >= 0x7F) {
          AppendEscaped(out, text, at, bytes);
        } else {
          out += text.substr(at, bytes);
        }
    }
    at += bytes;
  }
  return out + "\"";
}

// Whether two keys are one. Of equal hash and == in Python.
bool SameKey(const Value& a, const Value& b) {
  if (a.is_text()) return b.is_text() && a.text() == b.text();
  if (a.is_number() && b.is_number()) {
    return a.is_float() || b.is_float() ? a.as_float() == b.as_float() : a.as_int() == b.as_int();
  }
  return a.is_none() && b.is_none();
}

std::string JsonKey(const Value& key, bool ensure_ascii, Limits& limits) {
  if (key.is_text()) return QuotedJson(key.text(), ensure_ascii);
  return "\"" + ToJson(key, {}, limits) + "\"";  // true, null, 1, 1.5
}

}  // namespace

const Value* Dict::Find(std::string_view key) const {
  for (const auto& [k, v] : items) {
    if (k.is_text() && k.text() == key) return &v;
  }
  return nullptr;
}
const Value* Dict::Find(const Value& key) const {
  for (const auto& [k, v] : items) {
    if (SameKey(k, key)) return &v;
  }
  return nullptr;
}
void Dict::Set(Value key, Value value) {
  if (!key.is_text() && !key.is_number() && !key.is_none())
    Fail(std::string("a ") + key.TypeName() + " cannot be the key of a mapping");
  depth = std::max(depth, value.Depth() + 1);
  CheckDepth(depth);
  for (auto& [k, v] : items) {
    if (SameKey(k, key)) {
      v = std::move(value);
      return;
    }
  }
  items.emplace_back(std::move(key), std::move(value));
}
void Dict::Set(const std::string& key, Value value) { Set(Value::Text(key), std::move(value)); }

const Value* Arguments::Named(std::string_view name) const {
  for (const auto& [n, v] : named) {
    if (n == name) return &v;
  }
  return nullptr;
}
const Value* Arguments::Get(size_t i, std::string_view name) const {
  return i < positional.size() ? &positional[i] : Named(name);
}

void Arguments::Check(std::string_view function, std::string_view parameters) const {
  std::vector<std::string_view> names;
  bool any_position = false, any_name = false;
  for (std::string_view rest = parameters; !rest.empty();) {
    const size_t end = std::min(rest.find(' '), rest.size());
    const std::string_view name = rest.substr(0, end);
    any_position |= name == "...";
    any_name |= name == "**";
    if (name != "..." && name != "**") names.push_back(name);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const std::string called = std::string(function) + "()";
  if (positional.size() > names.size() && !any_position) {
    Fail(called +
         (names.empty() ? " takes no arguments"
                        : " takes at most " + std::to_string(names.size()) + " arguments") +
         " here, not " + std::to_string(positional.size()));
  }
  for (const auto& [name, value] : named) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end() && !any_name) Fail(called + " has no argument '" + name + "' here");
    if (found != names.end() && static_cast<size_t>(found - names.begin()) < positional.size()) {
      Fail(called + " is given its argument '" + name + "' twice");
    }
  }
}

Value Value::MakeUndefined(std::string name) { return Value(Data(Undefined{std::move(name)})); }
Value Value::MakeList(std::vector<Value> items, bool tuple) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.Depth());
  CheckDepth(depth + 1);
  return Value(Data(std::make_shared<const List>(List{std::move(items), tuple, depth + 1})));
}
Value Value::MakeDict(std::shared_ptr<Dict> dict) {
  for (const auto& item : dict->items) dict->depth = std::max(dict->depth, item.second.Depth() + 1);
  CheckDepth(dict->depth);
  return Value(Data(std::move(dict)));
}
int Value::Depth() const { return is_list() ? list().depth : is_dict() ? dict().depth : 0; }
Value Value::MakeFunction(std::string name, std::function<Value(const Arguments&)> call) {
  return Value(Data(std::make_shared<const Function>(Function{std::move(name), std::move(call)})));
}
bool Value::is_undefined() const { return std::holds_alternative<Undefined>(data_); }
int64_t Value::as_int() const { return is_bool() ? (as_bool() ? 1 : 0) : std::get<int64_t>(data_); }
double Value::as_float() const {
  return is_float() ? std::get<double>(data_) : static_cast<double>(as_int());
}

bool Value::Truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_float()) return as_float() != 0;
  if (is_number()) return as_int() != 0;
  if (is_text()) return !text().empty();
  if (is_list()) return !list().items.empty();
  if (is_dict()) return dict().is_namespace || !dict().items.empty();
  return true;
}

const char* Value::TypeName() const {
  constexpr const char* kNames[] = {"undefined", "none", "boolean", "integer", "float",
                                    "string",    "list", "mapping", "function"};
  return kNames[data_.index()];
}

void Limits::Spend(int64_t steps) {
  left_ -= steps;
  if (left_ < 0) Fail("it needs more work than any template should; is there a loop without end?");
}

bool Equal(const Value& a, const Value& b, Limits& limits, int depth) {
  limits.Spend();
  CheckDepth(depth);
  if (a.is_number() && b.is_number()) {
    return a.is_float() || b.is_float() ? a.as_float() == b.as_float() : a.as_int() == b.as_int();
  }
  if (a.is_text() && b.is_text()) return a.text() == b.text();
  if (a.is_list() && b.is_list()) {
    const auto &x = a.list().items, &y = b.list().items;
    if (x.size() != y.size()) return false;
    for (size_t i = 0; i < x.size(); ++i) {
      if (!Equal(x[i], y[i], limits, depth + 1)) return false;
    }
    return true;
  }
  if (a.is_dict() && b.is_dict()) {
    const auto &x = a.dict().items, &y = b.dict().items;
    if (x.size() != y.size()) return false;
    for (const auto& [key, value] : x) {
      limits.Spend(static_cast<int64_t>(y.size()));
      const Value* other = b.dict().Find(key);
      if (other == nullptr || !Equal(value, *other, limits, depth + 1)) return false;
    }
    return true;
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool Less(const Value& a, const Value& b, Limits& limits, int depth) {
  limits.Spend();
  CheckDepth(depth);
  if (a.is_number() && b.is_number()) {
    return a.is_float() || b.is_float() ? a.as_float() < b.as_float() : a.as_int() < b.as_int();
  }
  if (a.is_text() && b.is_text()) return a.text() < b.text();  // UTF-8 order is code point order
  if (a.is_list() && b.is_list()) {
    const auto &x = a.list().items, &y = b.list().items;
    for (size_t i = 0; i < x.size() && i < y.size(); ++i) {
      if (!Equal(x[i], y[i], limits, depth + 1)) return Less(x[i], y[i], limits, depth + 1);
    }
    return x.size() < y.size();
  }
  Fail(std::string("cannot order a ") + a.TypeName() + " and a " + b.TypeName());
}

bool Contains(const Value& hay, const Value& needle, Limits& limits) {
  if (hay.is_text()) {
    if (!needle.is_text())
      Fail(std::string("'in' a string needs a string, not a ") + needle.TypeName());
    limits.SpendText(hay.text().size());
    return hay.text().find(needle.text()) != std::string::npos;
  }
  if (hay.is_list()) {
    for (const Value& v : hay.list().items) {
      if (Equal(v, needle, limits)) return true;
    }
    return false;
  }
  if (hay.is_dict()) {
    limits.Spend(static_cast<int64_t>(hay.dict().items.size()));
    return hay.dict().Find(needle) != nullptr;
  }
  if (hay.is_undefined()) return false;
  Fail(std::string("'in' needs a string, list or mapping on its right, not a ") + hay.TypeName());
}

std::string ToText(const Value& v, Limits& limits) {
  if (v.is_text()) return v.text();
  if (v.is_undefined()) return "";
  return ToRepr(v, limits);
}

std::string ToRepr(const Value& v, Limits& limits, int depth) {
  limits.Spend();
  CheckDepth(depth);
  if (v.is_undefined()) return "Undefined";
  if (v.is_none()) return "None";
  if (v.is_bool()) return v.as_bool() ? "True" : "False";
  if (v.is_int()) return std::to_string(v.as_int());
  if (v.is_float()) return FloatText(v.as_float());
  if (v.is_text()) {
    limits.SpendText(v.text().size());
    return QuotedRepr(v.text());
  }
  std::string out;
  if (v.is_list()) {
    const auto& items = v.list().items;
    for (const Value& item : items)
      out += (out.empty() ? "" : ", ") + ToRepr(item, limits, depth + 1);
    limits.SpendText(out.size());
    if (v.list().tuple) return "(" + out + (items.size() == 1 ? ",)" : ")");
    return "[" + out + "]";
  }
  if (v.is_dict()) {
    for (const auto& [key, value] : v.dict().items) {
      out += (out.empty() ? "" : ", ") + ToRepr(key, limits, depth + 1) + ": " +
             ToRepr(value, limits, depth + 1);
    }
    limits.SpendText(out.size());
    return "{" + out + "}";
  }
  return "<function " + v.function().name + ">";
}

std::string ToJson(const Value& v, const JsonStyle& style, Limits& limits, int depth) {
  limits.Spend();
  CheckDepth(depth);
  if (v.is_none()) return "null";
  if (v.is_bool()) return v.as_bool() ? "true" : "false";
  if (v.is_int()) return std::to_string(v.as_int());
  if (v.is_float()) {
    if (std::isnan(v.as_float())) return "NaN";
    if (std::isinf(v.as_float())) return v.as_float() > 0 ? "Infinity" : "-Infinity";
    return FloatText(v.as_float());
  }
  if (v.is_text()) {
    limits.SpendText(v.text().size());
    return QuotedJson(v.text(), style.ensure_ascii);
  }
  std::string line, last, out;
  if (style.indent) {
    line = last = "\n";
    for (int i = 0; i < depth; ++i) last += *style.indent;
    line = last + *style.indent;
  }
  bool first = true;
  const auto add = [&](const std::string& item) {
    out += (first ? "" : style.item_separator) + line + item;
    limits.SpendText(item.size() + line.size());
    first = false;
  };
  if (v.is_list()) {
    for (const Value& item : v.list().items) add(ToJson(item, style, limits, depth + 1));
    return first ? "[]" : "[" + out + last + "]";
  }
  if (v.is_dict()) {
    auto items = v.dict().items;
    if (style.sort_keys) {
      std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
        return Less(a.first, b.first, limits);
      });
    }
    for (const auto& [key, value] : items) {
      add(JsonKey(key, style.ensure_ascii, limits) + style.key_separator +
          ToJson(value, style, limits, depth + 1));
    }
    return first ? "{}" : "{" + out + last + "}";
  }
  Fail(std::string("tojson cannot write a value that is ") + v.TypeName() +
       (v.is_undefined() ? " ('" + v.undefined_name() + "')" : ""));
}

std::vector<Value> Iterate(const Value& v, Limits& limits) {
  std::vector<Value> out;
  if (v.is_list()) {
    limits.Spend(static_cast<int64_t>(v.list().items.size()));
    return v.list().items;
  }
  if (v.is_dict() && !v.dict().is_namespace) {
    limits.Spend(static_cast<int64_t>(v.dict().items.size()));
    for (const auto& item : v.dict().items) out.push_back(item.first);
    return out;
  }
  if (v.is_text()) {
    const std::string& s = v.text();
    limits.Spend(static_cast<int64_t>(s.size()));
    for (size_t at = 0; at < s.size();) {
      const size_t n = CharacterBytes(s, at);
      out.push_back(Value::Text(s.substr(at, n)));
      at += n;
    }
    return out;
  }
  if (v.is_undefined()) return out;
  Fail(std::string("cannot walk over a ") + v.TypeName());
}

int64_t Length(const Value& v) {
  if (v.is_text()) return static_cast<int64_t>(CountCharacters(v.text()));
  if (v.is_list()) return static_cast<int64_t>(v.list().items.size());
  if (v.is_dict()) return static_cast<int64_t>(v.dict().items.size());
  if (v.is_undefined()) return 0;
  Fail(std::string("a ") + v.TypeName() + " has no length");
}

size_t CharacterBytes(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const size_t n = lead < 0xC2 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 1;
  if (at + n > text.size()) return 1;
  for (size_t i = 1; i < n; ++i) {
    if ((static_cast<unsigned char>(text[at + i]) & 0xC0) != 0x80) return 1;
  }
  return n;
}

size_t CountCharacters(std::string_view text) {
  size_t n = 0;
  for (size_t at = 0; at < text.size(); at += CharacterBytes(text, at)) ++n;
  return n;
}

size_t WhitespaceBytes(std::string_view text, size_t at) {
  const auto c = static_cast<unsigned char>(text[at]);
  if (c < 0x80) return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) ? 1 : 0;
  const std::string_view rest = text.substr(at);
  for (const char* s : {"\u0085", "\u00A0"}) {
    if (rest.starts_with(s)) return 2;
  }
  for (const char* s :
       {"\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007",
        "\u2008", "\u2009", "\u200A", "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"}) {
    if (rest.starts_with(s)) return 3;
  }
  return 0;
}

std::string_view StripLeft(std::string_view text) {
  while (!text.empty()) {
    const size_t n = WhitespaceBytes(text, 0);
    if (n == 0) break;
    text.remove_prefix(n);
  }
  return text;
}

std::string_view StripRight(std::string_view text) {
  while (!text.empty()) {
    size_t n = 0;
    for (size_t back = 1; back <= 3 && back <= text.size() && n == 0; ++back) {
      if (WhitespaceBytes(text, text.size() - back) == back) n = back;
    }
    if (n == 0) break;
    text.remove_suffix(n);
  }
  return text;
}

}  // namespace plumb::jinja
