// Values of a chat template while it runs: what Python's jinja2 would hold, with its notions of
// truth, equality and text.
//
// Thread safety: values share immutable payloads; dictionaries made by namespace() are the one
// mutable kind and live within one rendering. Ownership: shared. Errors: kInvalidArgument with what
// the template asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace plumb::jinja {

class Value;
class Limits;

struct Undefined {
  std::string name;  // what was looked up, for the message
};
struct None {};
struct List {
  std::vector<Value> items;
  bool tuple = false;  // printed with round brackets
  int depth = 1;       // 1 + that of the deepest item
};
// Insertion-ordered; keys are texts, numbers, booleans and none, of which 1, 1.0 and true are one,
// as in Python.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  bool is_namespace = false;  // only these may be assigned to
  int depth = 1;
  const Value* Find(std::string_view key) const;
  const Value* Find(const Value& key) const;
  void Set(Value key, Value value);
  void Set(const std::string& key, Value value);
};
// Arguments of a call: by position and by name.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  const Value* Named(std::string_view name) const;
  // The i-th positional argument or the one of that name; nullptr when absent.
  const Value* Get(size_t i, std::string_view name) const;
  // Throws for what `parameters` ("width first blank") does not list, for too many and for one that
  // is given twice. A last
  // "..." takes any number by position, a last "**" any name.
  void Check(std::string_view function, std::string_view parameters) const;
};
struct Function {
  std::string name;
  std::function<Value(const Arguments&)> call;
};

class Value {
 public:
  Value() : data_(Undefined{}) {}
  static Value MakeUndefined(std::string name);
  static Value MakeNone() { return Value(Data(None{})); }
  static Value Bool(bool v) { return Value(Data(v)); }
  static Value Int(int64_t v) { return Value(Data(v)); }
  static Value Float(double v) { return Value(Data(v)); }
  static Value Text(std::string v) {
    return Value(Data(std::make_shared<const std::string>(std::move(v))));
  }
  static Value MakeList(std::vector<Value> items, bool tuple = false);
  static Value MakeDict(std::shared_ptr<Dict> dict);
  static Value MakeFunction(std::string name, std::function<Value(const Arguments&)> call);

  bool is_undefined() const;
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }  // as in Python
  bool is_text() const { return std::holds_alternative<TextPtr>(data_); }
  bool is_list() const { return std::holds_alternative<ListPtr>(data_); }
  bool is_dict() const { return std::holds_alternative<DictPtr>(data_); }
  bool is_function() const { return std::holds_alternative<FunctionPtr>(data_); }

  bool as_bool() const { return std::get<bool>(data_); }
  int64_t as_int() const;   // REQUIRES: is_bool() or is_int()
  double as_float() const;  // REQUIRES: is_number()
  const std::string& text() const { return *std::get<TextPtr>(data_); }
  const List& list() const { return *std::get<ListPtr>(data_); }
  const Dict& dict() const { return *std::get<DictPtr>(data_); }
  Dict& mutable_dict() const { return *std::get<DictPtr>(data_); }
  const Function& function() const { return *std::get<FunctionPtr>(data_); }
  const std::string& undefined_name() const { return std::get<Undefined>(data_).name; }

  bool Truth() const;
  int Depth() const;             // 0 but for lists and dictionaries; at most kMaxValueDepth
  const char* TypeName() const;  // "string", "list", ... for messages

 private:
  using TextPtr = std::shared_ptr<const std::string>;
  using ListPtr = std::shared_ptr<const List>;
  using DictPtr = std::shared_ptr<Dict>;
  using FunctionPtr = std::shared_ptr<const Function>;
  using Data =
      std::variant<Undefined, None, bool, int64_t, double, TextPtr, ListPtr, DictPtr, FunctionPtr>;
  explicit Value(Data data) : data_(std::move(data)) {}
  Data data_;
};

// A list or dictionary nested deeper is refused when it is made: walks over values and their
// release may recurse.
inline constexpr int kMaxValueDepth = 64;

// Work and memory a rendering may still spend. Every step and every stretch of text or list made is
// charged, so that no template runs or grows without end.
class Limits {
 public:
  explicit Limits(int64_t steps) : left_(steps) {}
  void Spend(int64_t steps = 1);  // throws kInvalidArgument when used up
  void SpendText(size_t bytes) { Spend(static_cast<int64_t>(bytes / 32) + 1); }

 private:
  int64_t left_;
};

bool Equal(const Value& a, const Value& b, Limits& limits, int depth = 0);
// a < b: numbers, texts, lists. Throws for other pairs.
bool Less(const Value& a, const Value& b, Limits& limits, int depth = 0);
// Python's `needle in hay`.
bool Contains(const Value& hay, const Value& needle, Limits& limits);
std::string ToText(const Value& v, Limits& limits);  // str(v); "" for undefined
std::string ToRepr(const Value& v, Limits& limits, int depth = 0);
// The arguments of json.dumps. `indent`: of one level, as text; without it all stands on one line.
struct JsonStyle {
  std::optional<std::string> indent;
  std::string item_separator = ", ", key_separator = ": ";
  bool ensure_ascii = false, sort_keys = false;
};
std::string ToJson(const Value& v, const JsonStyle& style, Limits& limits, int depth = 0);
// What `for` walks over: items of a list, keys of a dictionary, characters of a text.
std::vector<Value> Iterate(const Value& v, Limits& limits);
int64_t Length(const Value& v);

// Texts by characters (code points); bytes that are not UTF-8 count as one character each.
size_t CharacterBytes(std::string_view text, size_t at);
size_t CountCharacters(std::string_view text);
// white space as Python's str.strip() sees it; 0 when `at` has none, else its bytes
size_t WhitespaceBytes(std::string_view text, size_t at);
std::string_view StripLeft(std::string_view text);
std::string_view StripRight(std::string_view text);

}  // namespace plumb::jinja
