#include "common/text/template/jinja_methods.h"

#include <algorithm>
#include <map>

#include "common/base/error.h"
#include "common/base/numbers/number_text.h"

namespace plumb::jinja {

void TemplateError(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "chat template: " + what);
}

namespace {

constexpr size_t kMaxText = size_t{16} << 20;

// The code point whose bytes are text[at, at + n) for the two-byte range, which is all that changes
// case here.
std::string ChangeCase(std::string_view text, bool upper) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t n = CharacterBytes(text, at);
    const auto lead = static_cast<unsigned char>(text[at]);
    if (n == 1 && lead < 0x80) {
      out += upper && lead >= 'a' && lead <= 'z'    ? static_cast<char>(lead - 32)
             : !upper && lead >= 'A' && lead <= 'Z' ? static_cast<char>(lead + 32)
                                                    : text[at];
    } else if (n == 2) {
      uint32_t c = (lead & 31u) << 6 | (static_cast<unsigned char>(text[at + 1]) & 63u);
      const auto in = [&](uint32_t low, uint32_t high) { return c >= low && c <= high; };
      if (upper && c == 0xDF) {  // Python: "SS"
        out += "SS";
        at += n;
        continue;
      }
      if (upper) {
        if ((in(0xE0, 0xFE) && c != 0xF7) || (in(0x3B1, 0x3C9) && c != 0x3C2) || in(0x430, 0x44F))
          c -= 32;
        else if (c == 0x3C2) c = 0x3A3;
        else if (in(0x450, 0x45F)) c -= 80;
      } else {
        if ((in(0xC0, 0xDE) && c != 0xD7) || (in(0x391, 0x3A9) && c != 0x3A2) || in(0x410, 0x42F))
          c += 32;
        else if (in(0x400, 0x40F)) c += 80;
      }
      out += static_cast<char>(0xC0 | (c >> 6));
      out += static_cast<char>(0x80 | (c & 63));
    } else {
      out += text.substr(at, n);
    }
    at += n;
  }
  return out;
}

bool IsLetter(std::string_view text, size_t at, size_t n) {
  if (n > 1) return true;
  const char c = text[at];
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Each run of letters with a capital first, as str.title() does.
std::string TitleText(std::string_view text) {
  std::string out;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const size_t n = CharacterBytes(text, at);
    out += inside ? LowerText(text.substr(at, n)) : UpperText(text.substr(at, n));
    inside = IsLetter(text, at, n);
    at += n;
  }
  return out;
}

const std::string& TextArgument(const Arguments& a, size_t i, std::string_view name,
                                const std::string& method) {
  const Value* v = a.Get(i, name);
  if (v == nullptr || !v->is_text()) TemplateError(method + "() needs a string");
  return v->text();
}
int64_t IntArgument(const Arguments& a, size_t i, std::string_view name, int64_t otherwise) {
  const Value* v = a.Get(i, name);
  if (v == nullptr || v->is_none()) return otherwise;
  if (!v->is_int() && !v->is_bool()) TemplateError(std::string(name) + " has to be a whole number");
  return v->as_int();
}

std::vector<Value> SplitText(std::string_view text, const Value* separator, int64_t max_splits,
                             bool from_right, Limits& limits) {
  std::vector<Value> out;
  limits.SpendText(text.size() * 4);
  if (separator == nullptr || separator->is_none()) {
    if (!from_right) {
      for (text = StripLeft(text); !text.empty(); text = StripLeft(text)) {
        limits.Spend();
        if (max_splits >= 0 && static_cast<int64_t>(out.size()) == max_splits) {
          out.push_back(Value::Text(std::string(text)));
          break;
        }
        size_t end = 0;
        while (end < text.size() && WhitespaceBytes(text, end) == 0)
          end += CharacterBytes(text, end);
        out.push_back(Value::Text(std::string(text.substr(0, end))));
        text.remove_prefix(end);
      }
      return out;
    }
    std::vector<Value> words = SplitText(text, nullptr, -1, false, limits);
    if (max_splits < 0 || static_cast<int64_t>(words.size()) <= max_splits) return words;
    // the words taken from the right leave the head with its inner spaces
    std::string_view head = StripRight(text);
    for (int64_t i = 0; i < max_splits; ++i) {
      head.remove_suffix(words[words.size() - 1 - static_cast<size_t>(i)].text().size());
      head = StripRight(head);
    }
    if (!head.empty()) out.push_back(Value::Text(std::string(head)));
    out.insert(out.end(), words.end() - static_cast<ptrdiff_t>(max_splits), words.end());
    return out;
  }
  if (!separator->is_text() || separator->text().empty())
    TemplateError("split() needs a separator that is not empty");
  const std::string& s = separator->text();
  if (from_right) {
    while (max_splits < 0 || static_cast<int64_t>(out.size()) < max_splits) {
      const size_t found = text.rfind(s);
      if (found == std::string_view::npos) break;
      limits.Spend();
      out.push_back(Value::Text(std::string(text.substr(found + s.size()))));
      text = text.substr(0, found);
    }
    out.push_back(Value::Text(std::string(text)));
    std::reverse(out.begin(), out.end());
    return out;
  }
  while (max_splits < 0 || static_cast<int64_t>(out.size()) < max_splits) {
    const size_t found = text.find(s);
    if (found == std::string_view::npos) break;
    limits.Spend();
    out.push_back(Value::Text(std::string(text.substr(0, found))));
    text.remove_prefix(found + s.size());
  }
  out.push_back(Value::Text(std::string(text)));
  return out;
}

// Bytes of the line end at `at`; 0 for none.
size_t LineEndBytes(std::string_view text, size_t at) {
  const std::string_view rest = text.substr(at);
  const char c = rest[0];
  if (rest.starts_with("\r\n")) return 2;
  if ((c >= '\n' && c <= '\r') || (c >= '\x1c' && c <= '\x1e')) return 1;
  if (rest.starts_with("\u0085")) return 2;
  return rest.starts_with("\u2028") || rest.starts_with("\u2029") ? 3 : 0;
}

bool StartsOrEnds(std::string_view text, const Value& what, bool starts,
                  const std::string& method) {
  if (what.is_list()) {
    for (const Value& v : what.list().items) {
      if (StartsOrEnds(text, v, starts, method)) return true;
    }
    return false;
  }
  if (!what.is_text()) TemplateError(method + "() needs a string");
  return starts ? text.starts_with(what.text()) : text.ends_with(what.text());
}

// What text[start:end] is, with the arguments of those numbers; `offset`: characters before it.
std::string_view Part(std::string_view text, const Arguments& a, size_t first, int64_t& offset) {
  offset = 0;
  if (a.Get(first, "start") == nullptr && a.Get(first + 1, "end") == nullptr) return text;
  const auto size = static_cast<int64_t>(CountCharacters(text));
  const auto clamp = [&](int64_t at) {
    return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size);
  };
  const int64_t start = IntArgument(a, first, "start", 0), begin = clamp(start),
                end = clamp(IntArgument(a, first + 1, "end", size));
  if (begin > end || start > size) {
    offset = -1;  // nothing is found there, not even ""
    return {};
  }
  size_t from = 0, to = 0;
  for (int64_t i = 0; i < end; ++i) {
    if (i == begin) from = to;
    to += CharacterBytes(text, to);
  }
  if (begin == end) from = to;
  offset = begin;
  return text.substr(from, to - from);
}

template <class Predicate>
bool All(const std::string& text, Predicate p) {
  for (char c : text) {
    if (!p(c)) return false;
  }
  return !text.empty();
}

struct TextMethod {
  const char* parameters;  // as Arguments::Check takes them
  Value (*call)(const std::string& text, const Arguments& a, const std::string& name,
                Limits& limits);
};

Value Strip(const std::string& t, const Arguments& a, const std::string& name, Limits&) {
  const Value* given = a.Get(0, "chars");
  const std::string* characters =
      given == nullptr || given->is_none() ? nullptr : &TextArgument(a, 0, "chars", name);
  return Value::Text(StripText(t, characters, name != "rstrip", name != "lstrip"));
}
Value Split(const std::string& t, const Arguments& a, const std::string& name, Limits& limits) {
  return Value::MakeList(
      SplitText(t, a.Get(0, "sep"), IntArgument(a, 1, "maxsplit", -1), name == "rsplit", limits));
}
Value Partition(const std::string& t, const Arguments& a, const std::string& name, Limits& limits) {
  const std::string& what = TextArgument(a, 0, "sep", name);
  if (what.empty()) TemplateError(name + "() needs a separator that is not empty");
  limits.SpendText(t.size());
  const bool right = name == "rpartition";
  const size_t at = right ? t.rfind(what) : t.find(what);
  std::string before = t, between, after;
  if (at != std::string::npos) {
    before = t.substr(0, at);
    between = what;
    after = t.substr(at + what.size());
  } else if (right) {
    std::swap(before, after);
  }
  return Value::MakeList({Value::Text(std::move(before)), Value::Text(std::move(between)),
                          Value::Text(std::move(after))},
                         true);
}
Value Starts(const std::string& t, const Arguments& a, const std::string& name, Limits&) {
  const Value* what = a.Get(0, "prefix");
  if (what == nullptr) TemplateError(name + "() needs a string");
  int64_t offset = 0;
  const std::string_view part = Part(t, a, 1, offset);
  return Value::Bool(offset >= 0 && StartsOrEnds(part, *what, name == "startswith", name));
}
Value Find(const std::string& t, const Arguments& a, const std::string& name, Limits& limits) {
  limits.SpendText(t.size());
  const std::string& what = TextArgument(a, 0, "sub", name);
  int64_t offset = 0;
  const std::string_view part = Part(t, a, 1, offset);
  const bool right = name == "rfind" || name == "rindex";
  const size_t at = offset < 0 ? std::string_view::npos
                    : right    ? part.rfind(what)
                               : part.find(what);
  if (at != std::string_view::npos)
    return Value::Int(offset + static_cast<int64_t>(CountCharacters(part.substr(0, at))));
  if (name == "index" || name == "rindex")
    TemplateError(name + "(): the text is not in the string");
  return Value::Int(-1);
}
Value Count(const std::string& t, const Arguments& a, const std::string& name, Limits& limits) {
  const std::string& what = TextArgument(a, 0, "sub", name);
  limits.SpendText(t.size());
  int64_t offset = 0, n = 0;
  const std::string_view part = Part(t, a, 1, offset);
  if (offset < 0) return Value::Int(0);
  if (what.empty()) return Value::Int(static_cast<int64_t>(CountCharacters(part)) + 1);
  for (size_t at = 0; (at = part.find(what, at)) != std::string_view::npos; at += what.size()) ++n;
  return Value::Int(n);
}
Value Remove(const std::string& t, const Arguments& a, const std::string& name, Limits&) {
  const std::string& what = TextArgument(a, 0, "prefix", name);
  if (name == "removeprefix") return Value::Text(t.starts_with(what) ? t.substr(what.size()) : t);
  return Value::Text(t.ends_with(what) ? t.substr(0, t.size() - what.size()) : t);
}
Value JoinList(const std::string& t, const Arguments& a, const std::string&, Limits& limits) {
  const Value* list = a.Get(0, "iterable");
  if (list == nullptr) TemplateError("join() takes one list");
  std::string out;
  bool first = true;
  for (const Value& v : Iterate(*list, limits)) {
    if (!v.is_text())
      TemplateError(std::string("join() of a ") + v.TypeName() + " where strings are needed");
    if (!first) out += t;
    out += v.text();
    limits.SpendText(t.size() + v.text().size());
    first = false;
  }
  return Value::Text(std::move(out));
}

const std::map<std::string, TextMethod, std::less<>>& TextMethods() {
  static const std::map<std::string, TextMethod, std::less<>> methods = {
      {"strip", {"chars", Strip}},
      {"lstrip", {"chars", Strip}},
      {"rstrip", {"chars", Strip}},
      {"split", {"sep maxsplit", Split}},
      {"rsplit", {"sep maxsplit", Split}},
      {"partition", {"sep", Partition}},
      {"rpartition", {"sep", Partition}},
      {"startswith", {"prefix start end", Starts}},
      {"endswith", {"prefix start end", Starts}},
      {"find", {"sub start end", Find}},
      {"rfind", {"sub start end", Find}},
      {"index", {"sub start end", Find}},
      {"rindex", {"sub start end", Find}},
      {"count", {"sub start end", Count}},
      {"removeprefix", {"prefix", Remove}},
      {"removesuffix", {"prefix", Remove}},
      {"join", {"iterable", JoinList}},
      {"upper",
       {"", [](const std::string& t, const Arguments&, const std::string&,
               Limits&) { return Value::Text(UpperText(t)); }}},
      {"lower",
       {"", [](const std::string& t, const Arguments&, const std::string&,
               Limits&) { return Value::Text(LowerText(t)); }}},
      {"title",
       {"", [](const std::string& t, const Arguments&, const std::string&,
               Limits&) { return Value::Text(TitleText(t)); }}},
      {"capitalize",
       {"", [](const std::string& t, const Arguments&, const std::string&,
               Limits&) { return Value::Text(CapitalizeText(t)); }}},
      {"splitlines",
       {"keepends",
        [](const std::string& t, const Arguments& a, const std::string&, Limits& limits) {
          const Value* keep = a.Get(0, "keepends");
          return Value::MakeList(SplitLines(t, keep != nullptr && keep->Truth(), limits));
        }}},
      {"replace",
       {"old new count",
        [](const std::string& t, const Arguments& a, const std::string& name, Limits& limits) {
          return Value::Text(ReplaceText(t, TextArgument(a, 0, "old", name),
                                         TextArgument(a, 1, "new", name),
                                         IntArgument(a, 2, "count", -1), limits));
        }}},
      {"isdigit",
       {"",
        [](const std::string& t, const Arguments&, const std::string&, Limits&) {
          return Value::Bool(All(t, [](char c) { return c >= '0' && c <= '9'; }));
        }}},
      {"isspace",
       {"", [](const std::string& t, const Arguments&, const std::string&,
               Limits&) { return Value::Bool(!t.empty() && StripLeft(t).empty()); }}},
      {"isupper",
       {"", [](const std::string& t, const Arguments&, const std::string&,
               Limits&) { return Value::Bool(UpperText(t) == t && LowerText(t) != t); }}},
      {"islower",
       {"", [](const std::string& t, const Arguments&, const std::string&,
               Limits&) { return Value::Bool(LowerText(t) == t && UpperText(t) != t); }}},
  };
  return methods;
}

Value DictMethod(const Value& target, std::string_view name, Limits& limits) {
  const auto pairs = [target, &limits](int what) {
    return [target, &limits, what](const Arguments& a) {
      a.Check(what == 0 ? "items" : what == 1 ? "keys" : "values", "");
      std::vector<Value> out;
      limits.Spend(static_cast<int64_t>(target.dict().items.size()));
      for (const auto& [key, value] : target.dict().items) {
        if (what == 0) out.push_back(Value::MakeList({key, value}, true));
        else out.push_back(what == 1 ? key : value);
      }
      return Value::MakeList(std::move(out));
    };
  };
  if (name == "items") return Value::MakeFunction("items", pairs(0));
  if (name == "keys") return Value::MakeFunction("keys", pairs(1));
  if (name == "values") return Value::MakeFunction("values", pairs(2));
  if (name == "get") {
    return Value::MakeFunction("get", [target, &limits](const Arguments& a) {
      if (a.positional.empty() || a.positional.size() > 2 || !a.named.empty())
        TemplateError("get() takes a key and what to give without it");
      const Value* key = &a.positional[0];
      limits.Spend(static_cast<int64_t>(target.dict().items.size()));
      const Value* found = target.dict().Find(*key);
      if (found != nullptr) return *found;
      const Value* otherwise = a.Get(1, "");
      return otherwise != nullptr ? *otherwise : Value::MakeNone();
    });
  }
  if (name == "copy") {  // only namespaces can be changed, so that the mapping itself is one
    return Value::MakeFunction("copy", [target](const Arguments& a) {
      a.Check("copy", "");
      return target;
    });
  }
  return Value::MakeUndefined(std::string(name));
}

Value Method(const Value& target, std::string_view name, Limits& limits) {
  if (target.is_text()) {
    const auto found = TextMethods().find(name);
    if (found == TextMethods().end()) return Value::MakeUndefined(std::string(name));
    const TextMethod method = found->second;
    return Value::MakeFunction(found->first,
                               [target, method, name = found->first, &limits](const Arguments& a) {
                                 limits.SpendText(target.text().size());
                                 a.Check(name, method.parameters);
                                 return method.call(target.text(), a, name, limits);
                               });
  }
  if (target.is_dict() && !target.dict().is_namespace) return DictMethod(target, name, limits);
  if (target.is_list() && (name == "index" || name == "count")) {
    return Value::MakeFunction(std::string(name),
                               [target, count = name == "count", &limits](const Arguments& a) {
                                 if (a.positional.size() != 1 || !a.named.empty())
                                   TemplateError("index() and count() take one value");
                                 int64_t n = 0;
                                 const auto& items = target.list().items;
                                 for (size_t i = 0; i < items.size(); ++i) {
                                   if (!Equal(items[i], a.positional[0], limits)) continue;
                                   if (!count) return Value::Int(static_cast<int64_t>(i));
                                   ++n;
                                 }
                                 if (!count) TemplateError("index(): the value is not in the list");
                                 return Value::Int(n);
                               });
  }
  return Value::MakeUndefined(std::string(name));
}

}  // namespace

Value Attribute(const Value& target, std::string_view name, Limits& limits) {
  limits.Spend();
  if (target.is_undefined()) {
    TemplateError("'" + target.undefined_name() + "' is undefined, so it has no '" +
                  std::string(name) + "'");
  }
  Value method = Method(target, name, limits);
  if (!method.is_undefined()) return method;
  if (target.is_dict()) {
    limits.Spend(static_cast<int64_t>(target.dict().items.size()));
    if (const Value* found = target.dict().Find(name)) return *found;
  }
  return Value::MakeUndefined(std::string(name));
}

Value Item(const Value& target, const Value& key, Limits& limits) {
  limits.Spend();
  if (target.is_undefined())
    TemplateError("'" + target.undefined_name() + "' is undefined, so it has no items");
  if (target.is_dict()) {
    limits.Spend(static_cast<int64_t>(target.dict().items.size()));
    if (const Value* found = target.dict().Find(key)) return *found;
    return key.is_text() ? Method(target, key.text(), limits) : Value::MakeUndefined("item");
  }
  if (key.is_text()) return Method(target, key.text(), limits);
  if ((target.is_list() || target.is_text()) && (key.is_int() || key.is_bool())) {
    const int64_t size = Length(target);
    const int64_t index = key.as_int() < 0 ? key.as_int() + size : key.as_int();
    if (index < 0 || index >= size)
      return Value::MakeUndefined("item " + std::to_string(key.as_int()));
    if (target.is_list()) return target.list().items[static_cast<size_t>(index)];
    const std::string& s = target.text();
    limits.SpendText(s.size());
    size_t at = 0;
    for (int64_t i = 0; i < index; ++i) at += CharacterBytes(s, at);
    return Value::Text(s.substr(at, CharacterBytes(s, at)));
  }
  return Value::MakeUndefined("item");
}

Value LookUpPath(const Value& target, std::string_view path, Limits& limits,
                 const Value* otherwise) {
  Value v = target;
  for (;;) {
    const size_t dot = path.find('.');
    const std::string_view part = path.substr(0, dot);
    const auto index = ParseNumber<int64_t>(part);
    v = Item(v, index && part[0] != '-' ? Value::Int(*index) : Value::Text(std::string(part)),
             limits);
    if (v.is_undefined() && otherwise != nullptr) v = *otherwise;
    if (dot == std::string_view::npos) return v;
    path.remove_prefix(dot + 1);
  }
}

Value Slice(const Value& target, const Value* begin, const Value* end, const Value* step,
            Limits& limits) {
  if (!target.is_list() && !target.is_text())
    TemplateError(std::string("cannot slice a ") + target.TypeName());
  const auto number = [](const Value* v, int64_t otherwise) {
    if (v == nullptr || v->is_none()) return otherwise;
    if (!v->is_int() && !v->is_bool())
      TemplateError("the parts of a slice have to be whole numbers");
    return v->as_int();
  };
  const std::vector<Value> items = Iterate(target, limits);
  const auto size = static_cast<int64_t>(items.size());
  const int64_t by = number(step, 1);
  if (by == 0) TemplateError("the step of a slice is 0");
  const auto clamp = [&](const Value* v, int64_t otherwise) {
    if (v == nullptr || v->is_none()) return otherwise;
    int64_t at = number(v, 0);
    if (at < 0) at = at < -size ? (by < 0 ? -1 : 0) : at + size;
    return by < 0 ? std::min(at, size - 1) : std::min(at, size);
  };
  const int64_t from = clamp(begin, by < 0 ? size - 1 : 0), to = clamp(end, by < 0 ? -1 : size);
  std::vector<Value> out;
  const int64_t distance = by < 0 ? from - to : to - from;
  const uint64_t magnitude =
      by < 0 ? uint64_t{0} - static_cast<uint64_t>(by) : static_cast<uint64_t>(by);
  for (uint64_t i = 0; distance > 0 && i < static_cast<uint64_t>(distance);) {
    out.push_back(items[static_cast<size_t>(by < 0 ? from - static_cast<int64_t>(i)
                                                   : from + static_cast<int64_t>(i))]);
    if (magnitude >= static_cast<uint64_t>(distance)) break;
    i += magnitude;
  }
  if (target.is_list()) return Value::MakeList(std::move(out), target.list().tuple);
  std::string text;
  for (const Value& v : out) text += v.text();
  return Value::Text(std::move(text));
}

std::vector<Value> SplitLines(std::string_view text, bool keep_ends, Limits& limits) {
  std::vector<Value> out;
  while (!text.empty()) {
    limits.Spend();
    size_t end = 0, eol = 0;
    while (end < text.size() && (eol = LineEndBytes(text, end)) == 0) ++end;
    out.push_back(Value::Text(std::string(text.substr(0, end + (keep_ends ? eol : 0)))));
    text.remove_prefix(end + eol);
  }
  return out;
}

std::string UpperText(std::string_view text) { return ChangeCase(text, true); }
std::string LowerText(std::string_view text) { return ChangeCase(text, false); }
std::string CapitalizeText(std::string_view text) {
  if (text.empty()) return "";
  const size_t n = CharacterBytes(text, 0);
  return UpperText(text.substr(0, n)) + LowerText(text.substr(n));
}

std::string ReplaceText(std::string_view text, std::string_view from, std::string_view to,
                        int64_t count, Limits& limits) {
  std::string out;
  const auto add = [&](std::string_view part) {
    limits.SpendText(part.size());
    if (out.size() + part.size() > kMaxText) TemplateError("a string has grown past 16 MiB");
    out += part;
  };
  if (from.empty()) {  // between all characters
    for (size_t at = 0; at < text.size();) {
      if (count != 0) {
        add(to);
        if (count > 0) --count;
      }
      const size_t n = CharacterBytes(text, at);
      add(text.substr(at, n));
      at += n;
    }
    if (count != 0) add(to);
    return out;
  }
  while (count != 0) {
    const size_t at = text.find(from);
    if (at == std::string_view::npos) break;
    add(text.substr(0, at));
    add(to);
    text.remove_prefix(at + from.size());
    if (count > 0) --count;
  }
  add(text);
  return out;
}

std::string StripText(std::string_view text, const std::string* characters, bool left, bool right) {
  if (characters == nullptr) {
    if (left) text = StripLeft(text);
    if (right) text = StripRight(text);
    return std::string(text);
  }
  const auto among = [&](std::string_view c) {
    for (size_t at = 0; at < characters->size(); at += CharacterBytes(*characters, at)) {
      if (std::string_view(*characters).substr(at, CharacterBytes(*characters, at)) == c)
        return true;
    }
    return false;
  };
  while (left && !text.empty() && among(text.substr(0, CharacterBytes(text, 0))))
    text.remove_prefix(CharacterBytes(text, 0));
  while (right && !text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && text.size() - last < 4 &&
           (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80)
      --last;
    if (last + CharacterBytes(text, last) != text.size()) last = text.size() - 1;
    if (!among(text.substr(last))) break;
    text.remove_suffix(text.size() - last);
  }
  return std::string(text);
}

}  // namespace plumb::jinja
