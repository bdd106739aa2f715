#include "common/text/template/jinja_interpreter.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <deque>
#include <map>

#include "common/base/error.h"
#include "common/text/template/jinja_filters.h"
#include "common/text/template/jinja_methods.h"

namespace plumb::jinja {
namespace {

// a dialogue of 1,000 turns takes some 100,000; all of them some 100 ms
constexpr int64_t kMaxSteps = 1'000'000;
constexpr size_t kMaxOutput = size_t{16} << 20;
constexpr int kMaxCalls = 50;  // macros inside macros
constexpr int64_t kMaxRange = 100'000;

// Names of one block. Lists are short: a template has a handful of variables.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string, Value>> names;

  const Value* Find(std::string_view name) const {
    for (const Scope* s = this; s != nullptr; s = s->parent) {
      for (const auto& [n, v] : s->names) {
        if (n == name) return &v;
      }
    }
    return nullptr;
  }
  void Set(const std::string& name, Value value) {
    for (auto& [n, v] : names) {
      if (n == name) {
        v = std::move(value);
        return;
      }
    }
    names.emplace_back(name, std::move(value));
  }
};

// datetime.now().strftime(format): C's, but for microseconds, and without a time zone.
std::string TimeText(const std::string& format) {
  std::timespec now{};
  std::timespec_get(&now, TIME_UTC);
  std::tm local{};
  localtime_r(&now.tv_sec, &local);
  std::string for_c;
  for (size_t i = 0; i < format.size(); ++i) {
    const char next = i + 1 < format.size() ? format[i + 1] : '\0';
    if (format[i] != '%' || (next != 'f' && next != 'z' && next != 'Z' && next != '%')) {
      for_c += format[i];
      continue;
    }
    ++i;
    if (next == '%') for_c += "%%";
    if (next == 'f') {
      const std::string digits = std::to_string(now.tv_nsec / 1000);
      for_c += std::string(6 - digits.size(), '0') + digits;
    }
  }
  char buffer[4096];
  return std::string(buffer, std::strftime(buffer, sizeof buffer, for_c.c_str(), &local));
}

enum class Flow { kNormal, kBreak, kContinue };

class Interpreter {
 public:
  explicit Interpreter(std::vector<std::pair<std::string, Value>> globals) : limits_(kMaxSteps) {
    root_.names = std::move(globals);
    AddFunctions();
  }
  ~Interpreter() {  // a namespace may hold itself
    for (const auto& dict : namespaces_) dict->items.clear();
  }
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  std::string Run(const Body& body) {
    Scope scope{&root_, {}};
    Execute(body, scope);
    return std::move(out_);
  }

 private:
  void AddFunctions() {
    const auto add = [&](const char* name, std::function<Value(const Arguments&)> f) {
      root_.Set(name, Value::MakeFunction(name, std::move(f)));
    };
    add("raise_exception", [](const Arguments& a) -> Value {
      a.Check("raise_exception", "message");
      const Value* message = a.Get(0, "message");
      throw Error(ErrorCode::kInvalidArgument,
                  "the chat template refuses these messages: " +
                      (message != nullptr && message->is_text() ? message->text() : "(no reason)"));
    });
    add("namespace", [this](const Arguments& a) {
      auto dict = std::make_shared<Dict>();
      dict->is_namespace = true;
      for (const Value& v : a.positional) {
        if (!v.is_dict()) TemplateError("namespace() takes names and mappings");
        for (const auto& [key, value] : v.dict().items) dict->Set(key, value);
      }
      for (const auto& [key, value] : a.named) dict->Set(key, value);
      namespaces_.push_back(dict);
      return Value::MakeDict(std::move(dict));
    });
    add("dict", [](const Arguments& a) {
      auto dict = std::make_shared<Dict>();
      for (const Value& v : a.positional) {
        if (!v.is_dict()) TemplateError("dict() takes names and mappings");
        for (const auto& [key, value] : v.dict().items) dict->Set(key, value);
      }
      for (const auto& [key, value] : a.named) dict->Set(key, value);
      return Value::MakeDict(std::move(dict));
    });
    add("range", [this](const Arguments& a) {
      const size_t n = a.positional.size();
      for (const Value& v : a.positional) {
        if (!v.is_int()) TemplateError("range() needs whole numbers");
      }
      if (n < 1 || n > 3 || !a.named.empty()) TemplateError("range() takes one to three numbers");
      const int64_t begin = n == 1 ? 0 : a.positional[0].as_int(),
                    end = a.positional[n == 1 ? 0 : 1].as_int();
      const int64_t by = n == 3 ? a.positional[2].as_int() : 1;
      if (by == 0) TemplateError("range() with a step of 0");
      std::vector<Value> out;
      for (int64_t i = begin; by > 0 ? i < end : i > end;) {
        if (static_cast<int64_t>(out.size()) >= kMaxRange)
          TemplateError("range() of more than 100000 numbers");
        limits_.Spend();
        out.push_back(Value::Int(i));
        if (__builtin_add_overflow(i, by, &i)) break;
      }
      return Value::MakeList(std::move(out));
    });
    add("strftime_now", [](const Arguments& a) {
      a.Check("strftime_now", "format");
      const Value* format = a.Get(0, "format");
      if (format == nullptr || !format->is_text() || format->text().size() > 200)
        TemplateError("strftime_now() takes one short format");
      return Value::Text(TimeText(format->text()));
    });
  }

  // ---- statements

  void Write(std::string_view text) {
    limits_.SpendText(text.size());
    if (out_.size() + text.size() > kMaxOutput)
      TemplateError("the rendered text grows past 16 MiB");
    out_ += text;
  }

  Flow Execute(const Body& body, Scope& scope) {
    for (const auto& s : body) {
      line_ = s->line;
      limits_.Spend();
      try {
        const Flow flow = ExecuteOne(*s, scope);
        if (flow != Flow::kNormal) return flow;
      } catch (const Error& e) {
        if (!e.where().empty()) throw;
        throw Error(e.code(), e.message(), "chat template, line " + std::to_string(line_));
      }
    }
    return Flow::kNormal;
  }

  // The text that `body` writes.
  std::string Captured(const Body& body, Scope& scope) {
    std::string outer = std::exchange(out_, {});
    Execute(body, scope);
    return std::exchange(out_, std::move(outer));
  }

  Flow ExecuteOne(const Statement& s, Scope& scope) {
    switch (s.type) {
      case StatementType::kText: Write(s.text); break;
      case StatementType::kPrint: Write(ToText(Evaluate(*s.expression, scope), limits_)); break;
      case StatementType::kFor: For(s, scope); break;
      case StatementType::kIf:
        for (const auto& [condition, body] : s.branches) {
          if (Evaluate(*condition, scope).Truth()) return Execute(body, scope);
        }
        return Execute(s.otherwise, scope);
      case StatementType::kSet: Set(s, scope); break;
      case StatementType::kSetBlock: {
        Scope inner{&scope, {}};
        std::string text = Captured(s.body, inner);
        scope.Set(s.targets[0], s.filter ? Filtered(*s.filter, Value::Text(std::move(text)), scope)
                                         : Value::Text(std::move(text)));
        break;
      }
      case StatementType::kFilterBlock: {
        Scope inner{&scope, {}};
        Write(ToText(Filtered(*s.filter, Value::Text(Captured(s.body, inner)), scope), limits_));
        break;
      }
      case StatementType::kMacro: DefineMacro(s, scope); break;
      case StatementType::kWith: {
        Scope inner{&scope, {}};
        for (const auto& [name, value] : s.parameters) inner.Set(name, Evaluate(*value, scope));
        return Execute(s.body, inner);
      }
      case StatementType::kScope: {
        Scope inner{&scope, {}};
        return Execute(s.body, inner);
      }
      case StatementType::kBreak: return Flow::kBreak;
      case StatementType::kContinue: return Flow::kContinue;
    }
    return Flow::kNormal;
  }

  void Assign(const std::vector<std::string>& targets, Value value, Scope& scope) {
    if (targets.size() == 1) {
      scope.Set(targets[0], std::move(value));
      return;
    }
    const std::vector<Value> parts = Iterate(value, limits_);
    if (parts.size() != targets.size()) {
      TemplateError("cannot unpack " + std::to_string(parts.size()) + " values into " +
                    std::to_string(targets.size()) + " names");
    }
    for (size_t i = 0; i < parts.size(); ++i) scope.Set(targets[i], parts[i]);
  }

  void Set(const Statement& s, Scope& scope) {
    Value value = Evaluate(*s.expression, scope);
    if (s.attribute.empty()) {
      Assign(s.targets, std::move(value), scope);
      return;
    }
    const Value* target = scope.Find(s.targets[0]);
    if (target == nullptr || !target->is_dict() || !target->dict().is_namespace) {
      TemplateError("'" + s.targets[0] + "' is not a namespace(), so nothing can be set in it");
    }
    limits_.Spend(static_cast<int64_t>(target->dict().items.size()));
    target->mutable_dict().Set(s.attribute, std::move(value));
  }

  void For(const Statement& s, Scope& scope) {
    std::vector<Value> items = Iterate(Evaluate(*s.expression, scope), limits_);
    if (s.condition) {  // the loop counts only what passes
      std::vector<Value> kept;
      for (Value& item : items) {
        Scope inner{&scope, {}};
        Assign(s.targets, item, inner);
        if (Evaluate(*s.condition, inner).Truth()) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    if (items.empty()) {
      Scope inner{&scope, {}};
      Execute(s.otherwise, inner);
      return;
    }
    const auto n = static_cast<int64_t>(items.size());
    const auto seen = std::make_shared<Value>();  // by loop.changed()
    for (int64_t i = 0; i < n; ++i) {
      limits_.Spend(12);
      auto loop = std::make_shared<Dict>();
      const auto say = [&](const char* name, Value v) {
        loop->items.emplace_back(LoopName(name), std::move(v));
      };
      say("index", Value::Int(i + 1)), say("index0", Value::Int(i));
      say("revindex", Value::Int(n - i)), say("revindex0", Value::Int(n - i - 1));
      say("first", Value::Bool(i == 0)), say("last", Value::Bool(i == n - 1)),
          say("length", Value::Int(n));
      say("depth", Value::Int(1)),
          say("depth0", Value::Int(0));  // of recursive loops, which are refused
      if (i > 0) say("previtem", items[static_cast<size_t>(i - 1)]);
      if (i + 1 < n) say("nextitem", items[static_cast<size_t>(i + 1)]);
      say("cycle", Value::MakeFunction("cycle", [i](const Arguments& a) {
            a.Check("loop.cycle", "...");
            if (a.positional.empty()) TemplateError("loop.cycle() needs values");
            return a.positional[static_cast<size_t>(i) % a.positional.size()];
          }));
      say("changed", Value::MakeFunction("changed", [this, seen](const Arguments& a) {
            a.Check("loop.changed", "...");
            Value now = Value::MakeList(a.positional, /*tuple=*/true);
            if (!seen->is_undefined() && Equal(*seen, now, limits_)) return Value::Bool(false);
            *seen = std::move(now);
            return Value::Bool(true);
          }));
      Scope inner{&scope, {}};
      inner.Set("loop", Value::MakeDict(std::move(loop)));
      Assign(s.targets, items[static_cast<size_t>(i)], inner);
      if (Execute(s.body, inner) == Flow::kBreak) break;
    }
  }

  // Names that every turn of every loop has, as values: made once.
  static const Value& LoopName(std::string_view name) {
    static const std::map<std::string, Value, std::less<>> kNames = [] {
      std::map<std::string, Value, std::less<>> names;
      for (const char* n : {"index", "index0", "revindex", "revindex0", "first", "last", "length",
                            "depth", "depth0", "previtem", "nextitem", "cycle", "changed"}) {
        names.emplace(n, Value::Text(n));
      }
      return names;
    }();
    return kNames.find(name)->second;
  }

  void DefineMacro(const Statement& s, Scope& scope) {
    // The macro may be called after the block that it stands in has ended, so it sees what was
    // there when it was defined.
    captured_.emplace_back();
    Scope& closure = captured_.back();
    for (const Scope* from = &scope; from != nullptr && from != &root_; from = from->parent) {
      limits_.Spend(static_cast<int64_t>(from->names.size()));
      for (const auto& [name, value] : from->names) {
        if (closure.Find(name) == nullptr) closure.names.emplace_back(name, value);
      }
    }
    closure.parent = &root_;
    Scope* const top = &scope;
    const bool at_top = scope.parent == &root_;
    Value macro = Value::MakeFunction(s.text, [this, &s, &closure, top,
                                               at_top](const Arguments& a) {
      if (++calls_ > kMaxCalls)
        TemplateError("macros call each other more than " + std::to_string(kMaxCalls) + " deep");
      // At top level later definitions are visible too, as in jinja2 where they are the template's
      // globals.
      Scope inner{at_top ? top : &closure, {}};
      if (a.positional.size() > s.parameters.size())
        TemplateError("the macro " + s.text + " takes fewer arguments");
      for (const auto& argument : a.named) {
        const bool known = std::any_of(s.parameters.begin(), s.parameters.end(),
                                       [&](const auto& p) { return p.first == argument.first; });
        if (!known)
          TemplateError("the macro " + s.text + " has no argument '" + argument.first + "'");
      }
      for (size_t i = 0; i < s.parameters.size(); ++i) {
        const auto& [name, otherwise] = s.parameters[i];
        const Value* given = a.Get(i, name);
        inner.Set(name, given != nullptr ? *given
                        : otherwise      ? Evaluate(*otherwise, inner)
                                         : Value::MakeUndefined(name));
      }
      const int line = line_;
      std::string text = Captured(s.body, inner);
      line_ = line;
      --calls_;
      return Value::Text(std::move(text));
    });
    if (!at_top) closure.names.emplace_back(s.text, macro);
    scope.Set(s.text, std::move(macro));
  }

  // ---- expressions

  Arguments EvaluateArguments(const Expression& e, Scope& scope) {
    Arguments a;
    for (const auto& p : e.positional) a.positional.push_back(Evaluate(*p, scope));
    for (const auto& [name, p] : e.named) a.named.emplace_back(name, Evaluate(*p, scope));
    return a;
  }

  Value Filtered(const Expression& e, Value input, Scope& scope) {
    if (e.children[0]) input = Filtered(*e.children[0], std::move(input), scope);
    return ApplyFilter(e.text, input, EvaluateArguments(e, scope), limits_);
  }

  Value Evaluate(const Expression& e, Scope& scope) {
    limits_.Spend();
    switch (e.type) {
      case ExpressionType::kConstant: return e.value;
      case ExpressionType::kName: {
        const Value* found = scope.Find(e.text);
        return found != nullptr ? *found : Value::MakeUndefined(e.text);
      }
      case ExpressionType::kList:
      case ExpressionType::kTuple: {
        std::vector<Value> items;
        for (const auto& child : e.children) items.push_back(Evaluate(*child, scope));
        return Value::MakeList(std::move(items), e.type == ExpressionType::kTuple);
      }
      case ExpressionType::kDict: {
        auto dict = std::make_shared<Dict>();
        for (size_t i = 0; i + 1 < e.children.size(); i += 2) {
          Value key = Evaluate(*e.children[i], scope);
          limits_.Spend(static_cast<int64_t>(dict->items.size()));
          dict->Set(std::move(key), Evaluate(*e.children[i + 1], scope));
        }
        return Value::MakeDict(std::move(dict));
      }
      case ExpressionType::kAttribute:
        return Attribute(Evaluate(*e.children[0], scope), e.text, limits_);
      case ExpressionType::kItem: {
        const Value target = Evaluate(*e.children[0], scope);
        return Item(target, Evaluate(*e.children[1], scope), limits_);
      }
      case ExpressionType::kSlice: {
        const Value target = Evaluate(*e.children[0], scope);
        Value parts[3];
        const Value* given[3] = {};
        for (size_t i = 0; i < 3; ++i) {
          if (!e.children[i + 1]) continue;
          parts[i] = Evaluate(*e.children[i + 1], scope);
          given[i] = &parts[i];
        }
        return Slice(target, given[0], given[1], given[2], limits_);
      }
      case ExpressionType::kCall: {
        const Value f = Evaluate(*e.children[0], scope);
        if (!f.is_function()) {
          TemplateError(f.is_undefined()
                            ? "'" + f.undefined_name() + "' is undefined, so it cannot be called"
                            : std::string("a ") + f.TypeName() + " cannot be called");
        }
        return f.function().call(EvaluateArguments(e, scope));
      }
      case ExpressionType::kFilter: {
        const Value input = Evaluate(*e.children[0], scope);
        return ApplyFilter(e.text, input, EvaluateArguments(e, scope), limits_);
      }
      case ExpressionType::kTest: {
        const Value input = Evaluate(*e.children[0], scope);
        return Value::Bool(ApplyTest(e.text, input, EvaluateArguments(e, scope), limits_));
      }
      case ExpressionType::kNot: return Value::Bool(!Evaluate(*e.children[0], scope).Truth());
      case ExpressionType::kNegate: {
        const Value v = Evaluate(*e.children[0], scope);
        if (v.is_float()) return Value::Float(-v.as_float());
        return Arithmetic("-", Value::Int(0), v);
      }
      case ExpressionType::kPlus:
        return Arithmetic("+", Value::Int(0), Evaluate(*e.children[0], scope));
      case ExpressionType::kBinary: {
        Value a = Evaluate(*e.children[0], scope);
        if (e.text == "and") return a.Truth() ? Evaluate(*e.children[1], scope) : a;
        if (e.text == "or") return a.Truth() ? a : Evaluate(*e.children[1], scope);
        return Arithmetic(e.text, a, Evaluate(*e.children[1], scope));
      }
      case ExpressionType::kCompare: {
        Value left = Evaluate(*e.children[0], scope);
        for (size_t i = 0; i < e.names.size(); ++i) {
          Value right = Evaluate(*e.children[i + 1], scope);
          if (!Compare(e.names[i], left, right)) return Value::Bool(false);
          left = std::move(right);
        }
        return Value::Bool(true);
      }
      case ExpressionType::kConditional:
        if (Evaluate(*e.children[0], scope).Truth()) return Evaluate(*e.children[1], scope);
        return e.children[2] ? Evaluate(*e.children[2], scope)
                             : Value::MakeUndefined("the value of an 'if' without 'else'");
    }
    return Value();
  }

  bool Compare(const std::string& op, const Value& a, const Value& b) {
    if (op == "==") return Equal(a, b, limits_);
    if (op == "!=") return !Equal(a, b, limits_);
    if (op == "in") return Contains(b, a, limits_);
    if (op == "not in") return !Contains(b, a, limits_);
    if (op == "<") return Less(a, b, limits_);
    if (op == ">") return Less(b, a, limits_);
    return (op == "<=" ? Less(a, b, limits_) : Less(b, a, limits_)) || Equal(a, b, limits_);
  }

  Value Arithmetic(const std::string& op, const Value& a, const Value& b) {
    if (op == "~") return Joined(ToText(a, limits_), ToText(b, limits_));
    if (op == "+" && a.is_text() && b.is_text()) return Joined(a.text(), b.text());
    if (op == "+" && a.is_list() && b.is_list()) {
      limits_.Spend(static_cast<int64_t>(a.list().items.size() + b.list().items.size()));
      std::vector<Value> items = a.list().items;
      items.insert(items.end(), b.list().items.begin(), b.list().items.end());
      return Value::MakeList(std::move(items), a.list().tuple);
    }
    if (op == "*" && (a.is_text() || a.is_list()) && b.is_int()) return Repeated(a, b.as_int());
    if (op == "*" && (b.is_text() || b.is_list()) && a.is_int()) return Repeated(b, a.as_int());
    if (op == "%" && a.is_text())
      TemplateError("'%' on a string is not supported; use ~ or format with filters");
    if (!a.is_number() || !b.is_number()) {
      const Value& bad = a.is_number() ? b : a;
      TemplateError("'" + op + "' cannot take a " + a.TypeName() + " and a " + b.TypeName() +
                    (bad.is_undefined() ? " ('" + bad.undefined_name() + "' is undefined)" : ""));
    }
    const bool floats = a.is_float() || b.is_float();
    if ((op == "/" || op == "//" || op == "%") && b.as_float() == 0)
      TemplateError("division by zero");
    if (op == "/") return Value::Float(a.as_float() / b.as_float());
    if (op == "**") return Power(a, b);
    if (floats) {
      const double x = a.as_float(), y = b.as_float();
      if (op == "+") return Value::Float(x + y);
      if (op == "-") return Value::Float(x - y);
      if (op == "*") return Value::Float(x * y);
      return Value::Float(op == "//" ? std::floor(x / y) : x - y * std::floor(x / y));
    }
    const int64_t x = a.as_int(), y = b.as_int();
    int64_t out = 0;
    bool overflow = false;
    if (op == "+") overflow = __builtin_add_overflow(x, y, &out);
    else if (op == "-") overflow = __builtin_sub_overflow(x, y, &out);
    else if (op == "*") overflow = __builtin_mul_overflow(x, y, &out);
    else if (y == -1) overflow = op == "//" && __builtin_sub_overflow(int64_t{0}, x, &out);
    else {
      const bool rounds_down = x % y != 0 && (x < 0) != (y < 0);
      out = op == "//" ? x / y - (rounds_down ? 1 : 0) : x % y + (rounds_down ? y : 0);
    }
    if (overflow) TemplateError("a number is too large");
    return Value::Int(out);
  }

  static Value Power(const Value& a, const Value& b) {
    const double v = std::pow(a.as_float(), b.as_float());
    const bool whole = !a.is_float() && !b.is_float() && b.as_int() >= 0;
    if (!whole) return Value::Float(v);
    if (!(std::fabs(v) < 9e15)) TemplateError("a number is too large");
    return Value::Int(static_cast<int64_t>(v));
  }

  Value Joined(const std::string& a, const std::string& b) {
    limits_.SpendText(a.size() + b.size());
    if (a.size() + b.size() > kMaxOutput) TemplateError("a string grows past 16 MiB");
    return Value::Text(a + b);
  }

  Value Repeated(const Value& v, int64_t times) {
    times = std::max<int64_t>(times, 0);
    const auto size = static_cast<int64_t>(v.is_text() ? v.text().size() : v.list().items.size());
    if (size > 0 && times > static_cast<int64_t>(kMaxOutput) / size)
      TemplateError("a repeated value grows too large");
    if (v.is_text()) {
      limits_.SpendText(static_cast<size_t>(size * times));
      std::string out;
      for (int64_t i = 0; i < times && size > 0; ++i) out += v.text();
      return Value::Text(std::move(out));
    }
    limits_.Spend(size * times);
    std::vector<Value> items;
    for (int64_t i = 0; i < times && size > 0; ++i)
      items.insert(items.end(), v.list().items.begin(), v.list().items.end());
    return Value::MakeList(std::move(items), v.list().tuple);
  }

  Limits limits_;
  Scope root_;
  std::deque<Scope> captured_;  // what macros inside of blocks see; stable addresses
  std::vector<std::shared_ptr<Dict>> namespaces_;
  std::string out_;
  int line_ = 1;
  int calls_ = 0;
};

}  // namespace

std::string Render(const Body& body, std::vector<std::pair<std::string, Value>> globals) {
  return Interpreter(std::move(globals)).Run(body);
}

}  // namespace plumb::jinja
