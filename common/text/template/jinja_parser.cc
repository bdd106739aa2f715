#include "common/text/template/jinja_parser.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "common/base/error.h"
#include "common/text/template/jinja_filters.h"
#include "common/text/template/jinja_lexer.h"

namespace plumb::jinja {
namespace {

constexpr int kMaxBlocks = 100;  // statements inside statements

[[noreturn]] void Unsupported(const std::string& what, int line) {
  throw Error(ErrorCode::kUnsupported, what, "chat template, line " + std::to_string(line));
}

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(Tokenize(source)) {}

  Body Run() {
    std::string end;
    return Statements({}, end);
  }

 private:
  const Token& Now() const { return tokens_[at_]; }
  const Token& Ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  int line() const { return Now().line; }
  Token Take() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_[at_]; }
  bool IsOperator(std::string_view op) const {
    return Now().type == TokenType::kOperator && Now().text == op;
  }
  bool IsName(std::string_view name) const {
    return Now().type == TokenType::kName && Now().text == name;
  }
  bool AheadIsOperator(std::string_view op) const {
    return Ahead().type == TokenType::kOperator && Ahead().text == op;
  }
  bool SkipOperator(std::string_view op) {
    if (!IsOperator(op)) return false;
    ++at_;
    return true;
  }
  bool SkipName(std::string_view name) {
    if (!IsName(name)) return false;
    ++at_;
    return true;
  }
  std::string Describe() const {
    switch (Now().type) {
      case TokenType::kEnd: return "the end of the template";
      case TokenType::kBlockEnd: return "%}";
      case TokenType::kVariableEnd: return "}}";
      default: return "'" + Now().text + "'";
    }
  }
  void ExpectOperator(std::string_view op) {
    if (!SkipOperator(op))
      SyntaxError("expected '" + std::string(op) + "', found " + Describe(), line());
  }
  std::string ExpectName() {
    if (Now().type != TokenType::kName) SyntaxError("expected a name, found " + Describe(), line());
    return Take().text;
  }
  void ExpectBlockEnd() {
    if (Now().type != TokenType::kBlockEnd) SyntaxError("expected %}, found " + Describe(), line());
    ++at_;
  }

  // ---- statements

  // Up to a tag named in `ends` (left after its name; which one is put into `end`), or to the end
  // when `ends` is empty.
  Body Statements(std::initializer_list<std::string_view> ends, std::string& end) {
    Body out;
    const int opened = line();
    for (;;) {
      switch (Now().type) {
        case TokenType::kEnd:
          if (ends.size() != 0)
            SyntaxError(
                "a tag that begins here has no {% " + std::string(*(ends.end() - 1)) + " %}",
                opened);
          return out;
        case TokenType::kData: {
          auto s = New(StatementType::kText);
          s->text = Take().text;
          out.push_back(std::move(s));
          break;
        }
        case TokenType::kVariableBegin: {
          auto s = New(StatementType::kPrint);
          ++at_;
          s->expression = TupleOrExpression();
          if (Now().type != TokenType::kVariableEnd)
            SyntaxError("expected }}, found " + Describe(), line());
          ++at_;
          out.push_back(std::move(s));
          break;
        }
        case TokenType::kBlockBegin:
          ++at_;
          if (Now().type == TokenType::kName &&
              std::find(ends.begin(), ends.end(), Now().text) != ends.end()) {
            end = Take().text;
            return out;
          }
          if (++blocks_ > kMaxBlocks) SyntaxError("tags are nested too deeply", line());
          out.push_back(Tag());
          --blocks_;
          break;
        default: SyntaxError("unexpected " + Describe(), line());
      }
    }
  }
  Body BodyUntil(std::string_view name) {
    ExpectBlockEnd();
    std::string end;
    Body body = Statements({name}, end);
    ExpectBlockEnd();
    return body;
  }
  std::unique_ptr<Statement> New(StatementType type) const {
    auto s = std::make_unique<Statement>();
    s->type = type;
    s->line = line();
    return s;
  }

  std::unique_ptr<Statement> Tag() {
    const int at_line = line();
    const std::string name = ExpectName();
    if (name == "for") return For();
    if (name == "if") return If();
    if (name == "set") return Set();
    if (name == "macro") return Macro();
    if (name == "with") return With();
    if (name == "break" || name == "continue") {
      if (loops_ == 0) SyntaxError("{% " + name + " %} outside of a loop", at_line);
      auto s = New(name == "break" ? StatementType::kBreak : StatementType::kContinue);
      ExpectBlockEnd();
      return s;
    }
    // transformers marks the assistant's tokens with it; the text is unchanged
    if (name == "generation") {
      auto s = New(StatementType::kScope);
      s->body = BodyUntil("endgeneration");
      return s;
    }
    if (name == "filter") {
      auto s = New(StatementType::kFilterBlock);
      s->filter = FilterChain(nullptr, true);
      s->body = BodyUntil("endfilter");
      return s;
    }
    for (const char* known :
         {"include", "import", "from", "extends", "block", "call", "do", "autoescape", "trans"}) {
      if (name == known)
        Unsupported("the tag {% " + name + " %} is not supported in chat templates", at_line);
    }
    SyntaxError("unknown or misplaced tag '" + name + "'", at_line);
  }

  std::vector<std::string> Targets() {
    std::vector<std::string> out;
    const bool brackets = SkipOperator("(");
    do {
      if (!out.empty() && (IsName("in") || IsOperator("="))) break;  // a trailing comma
      out.push_back(ExpectName());
    } while (SkipOperator(","));
    if (brackets) ExpectOperator(")");
    return out;
  }

  std::unique_ptr<Statement> For() {
    auto s = New(StatementType::kFor);
    s->targets = Targets();
    if (!SkipName("in")) SyntaxError("expected 'in', found " + Describe(), line());
    s->expression = Or();
    if (IsOperator(",")) s->expression = TupleFrom(std::move(s->expression), false);
    if (SkipName("if")) s->condition = Conditional();
    if (IsName("recursive"))
      Unsupported("recursive loops are not supported in chat templates", line());
    ExpectBlockEnd();
    std::string end;
    ++loops_;
    s->body = Statements({"else", "endfor"}, end);
    --loops_;
    if (end == "else") {
      ExpectBlockEnd();
      s->otherwise = Statements({"endfor"}, end);
    }
    ExpectBlockEnd();
    return s;
  }

  std::unique_ptr<Statement> If() {
    auto s = New(StatementType::kIf);
    std::string end = "elif";
    while (end == "elif") {
      ExpressionPtr condition = TupleOrExpression();
      ExpectBlockEnd();
      Body body = Statements({"elif", "else", "endif"}, end);
      s->branches.emplace_back(std::move(condition), std::move(body));
    }
    if (end == "else") {
      ExpectBlockEnd();
      s->otherwise = Statements({"endif"}, end);
    }
    ExpectBlockEnd();
    return s;
  }

  std::unique_ptr<Statement> Set() {
    auto s = New(StatementType::kSet);
    if (Now().type == TokenType::kName && AheadIsOperator(".")) {
      s->targets.push_back(Take().text);
      ++at_;
      s->attribute = ExpectName();
    } else {
      s->targets = Targets();
    }
    if (SkipOperator("=")) {
      s->expression = TupleOrExpression();
      ExpectBlockEnd();
      return s;
    }
    if (s->targets.size() != 1 || !s->attribute.empty())
      SyntaxError("a {% set %} block has one name", line());
    s->type = StatementType::kSetBlock;
    if (IsOperator("|")) s->filter = FilterChain(nullptr, false);
    s->body = BodyUntil("endset");
    return s;
  }

  std::unique_ptr<Statement> With() {
    auto s = New(StatementType::kWith);
    while (Now().type != TokenType::kBlockEnd) {
      if (!s->parameters.empty()) ExpectOperator(",");
      std::string target = ExpectName();
      ExpectOperator("=");
      s->parameters.emplace_back(std::move(target), Conditional());
    }
    s->body = BodyUntil("endwith");
    return s;
  }

  std::unique_ptr<Statement> Macro() {
    auto s = New(StatementType::kMacro);
    s->text = ExpectName();
    ExpectOperator("(");
    while (!IsOperator(")")) {
      if (!s->parameters.empty()) ExpectOperator(",");
      std::string name = ExpectName();
      ExpressionPtr otherwise = SkipOperator("=") ? Conditional() : nullptr;
      if (!otherwise && !s->parameters.empty() && s->parameters.back().second) {
        SyntaxError("a parameter without a default after one with", line());
      }
      s->parameters.emplace_back(std::move(name), std::move(otherwise));
    }
    ExpectOperator(")");
    const int loops = std::exchange(loops_, 0);  // a break belongs to a loop of the macro itself
    s->body = BodyUntil("endmacro");
    loops_ = loops;
    return s;
  }

  // ---- expressions, from the loosest to the tightest

  class Nesting {
   public:
    explicit Nesting(Parser& p) : p_(p) {
      if (++p_.nested_ > kMaxHeight) SyntaxError("an expression is nested too deeply", p_.line());
    }
    ~Nesting() { --p_.nested_; }

   private:
    Parser& p_;
  };

  ExpressionPtr Make(ExpressionType type, std::string text = {}) const {
    auto e = std::make_unique<Expression>();
    e->type = type;
    e->line = line();
    e->text = std::move(text);
    return e;
  }
  static void Adopt(Expression& parent, const ExpressionPtr& child) {
    if (!child) return;
    parent.height = std::max(parent.height, child->height + 1);
    if (parent.height > kMaxHeight) SyntaxError("an expression is nested too deeply", parent.line);
  }
  static void AddChild(Expression& parent, ExpressionPtr child) {
    Adopt(parent, child);
    parent.children.push_back(std::move(child));
  }
  ExpressionPtr MakeWith(ExpressionType type, std::string text, ExpressionPtr a,
                         ExpressionPtr b = nullptr) const {
    auto e = Make(type, std::move(text));
    AddChild(*e, std::move(a));
    if (b) AddChild(*e, std::move(b));
    return e;
  }
  ExpressionPtr Constant(Value v) const {
    auto e = Make(ExpressionType::kConstant);
    e->value = std::move(v);
    return e;
  }

  ExpressionPtr TupleOrExpression() {
    ExpressionPtr first = Conditional();
    return IsOperator(",") ? TupleFrom(std::move(first), true) : std::move(first);
  }
  ExpressionPtr TupleFrom(ExpressionPtr first, bool conditional) {
    auto tuple = Make(ExpressionType::kTuple);
    AddChild(*tuple, std::move(first));
    while (SkipOperator(",")) {
      if (Now().type == TokenType::kBlockEnd || Now().type == TokenType::kVariableEnd ||
          IsOperator(")"))
        break;
      AddChild(*tuple, conditional ? Conditional() : Or());
    }
    return tuple;
  }

  ExpressionPtr Conditional() {
    const Nesting nesting(*this);
    ExpressionPtr e = Or();
    while (SkipName("if")) {
      auto out = Make(ExpressionType::kConditional);
      AddChild(*out, Or());
      AddChild(*out, std::move(e));
      AddChild(*out, SkipName("else") ? Conditional() : nullptr);
      e = std::move(out);
    }
    return e;
  }
  ExpressionPtr Or() {
    ExpressionPtr e = And();
    while (SkipName("or")) e = MakeWith(ExpressionType::kBinary, "or", std::move(e), And());
    return e;
  }
  ExpressionPtr And() {
    ExpressionPtr e = Not();
    while (SkipName("and")) e = MakeWith(ExpressionType::kBinary, "and", std::move(e), Not());
    return e;
  }
  ExpressionPtr Not() {
    const Nesting nesting(*this);
    if (SkipName("not")) return MakeWith(ExpressionType::kNot, "", Not());
    return Compare();
  }
  ExpressionPtr Compare() {
    ExpressionPtr first = Sum(), out;
    for (;;) {
      std::string op;
      for (const char* known : {"==", "!=", "<=", ">=", "<", ">"}) {
        if (op.empty() && SkipOperator(known)) op = known;
      }
      if (op.empty() && SkipName("in")) op = "in";
      if (op.empty() && IsName("not") && Ahead().type == TokenType::kName && Ahead().text == "in") {
        at_ += 2;
        op = "not in";
      }
      if (op.empty()) return out ? std::move(out) : std::move(first);
      if (!out) out = MakeWith(ExpressionType::kCompare, "", std::move(first));
      out->names.push_back(op);
      AddChild(*out, Sum());
    }
  }
  ExpressionPtr Sum() {
    ExpressionPtr e = Join();
    while (IsOperator("+") || IsOperator("-")) {
      const std::string op = Take().text;
      e = MakeWith(ExpressionType::kBinary, op, std::move(e), Join());
    }
    return e;
  }
  ExpressionPtr Join() {
    ExpressionPtr e = Product();
    while (SkipOperator("~")) e = MakeWith(ExpressionType::kBinary, "~", std::move(e), Product());
    return e;
  }
  ExpressionPtr Product() {
    ExpressionPtr e = Power();
    while (IsOperator("*") || IsOperator("/") || IsOperator("//") || IsOperator("%")) {
      const std::string op = Take().text;
      e = MakeWith(ExpressionType::kBinary, op, std::move(e), Power());
    }
    return e;
  }
  ExpressionPtr Power() {
    ExpressionPtr e = Unary(true);
    while (SkipOperator("**"))
      e = MakeWith(ExpressionType::kBinary, "**", std::move(e), Unary(true));
    return e;
  }
  ExpressionPtr Unary(bool with_filter) {
    const Nesting nesting(*this);
    ExpressionPtr e;
    if (SkipOperator("-")) e = MakeWith(ExpressionType::kNegate, "", Unary(false));
    else if (SkipOperator("+")) e = MakeWith(ExpressionType::kPlus, "", Unary(false));
    else e = Primary();
    e = Postfix(std::move(e));
    return with_filter ? FiltersAndTests(std::move(e)) : std::move(e);
  }

  ExpressionPtr Primary() {
    const Token token = Take();
    switch (token.type) {
      case TokenType::kName: {
        const std::string& n = token.text;
        if (n == "true" || n == "True") return Constant(Value::Bool(true));
        if (n == "false" || n == "False") return Constant(Value::Bool(false));
        if (n == "none" || n == "None") return Constant(Value::MakeNone());
        return Make(ExpressionType::kName, n);
      }
      case TokenType::kString: {
        std::string text = token.text;
        while (Now().type == TokenType::kString) text += Take().text;
        return Constant(Value::Text(std::move(text)));
      }
      case TokenType::kInteger:
      case TokenType::kFloat: return Number(token);
      case TokenType::kOperator:
        if (token.text == "(") return Brackets();
        if (token.text == "[") return ListOrDict(ExpressionType::kList, "]");
        if (token.text == "{") return ListOrDict(ExpressionType::kDict, "}");
        break;
      default: break;
    }
    SyntaxError(
        "unexpected " + (token.text.empty() ? std::string("end of a tag") : "'" + token.text + "'"),
        token.line);
  }
  ExpressionPtr Number(const Token& token) const {
    const char *begin = token.text.data(), *end = begin + token.text.size();
    int64_t whole = 0;
    double number = 0;
    const bool is_whole = token.type == TokenType::kInteger;
    const auto [last, error] =
        is_whole ? std::from_chars(begin, end, whole) : std::from_chars(begin, end, number);
    if (error != std::errc() || last != end)
      SyntaxError("the number " + token.text + " is too large", token.line);
    return Constant(is_whole ? Value::Int(whole) : Value::Float(number));
  }
  ExpressionPtr Brackets() {
    if (SkipOperator(")")) return Make(ExpressionType::kTuple);
    ExpressionPtr e = TupleOrExpression();
    ExpectOperator(")");
    return e;
  }
  ExpressionPtr ListOrDict(ExpressionType type, std::string_view close) {
    auto out = Make(type);
    while (!IsOperator(close)) {
      if (!out->children.empty()) ExpectOperator(",");
      if (IsOperator(close)) break;
      AddChild(*out, Conditional());
      if (type == ExpressionType::kDict) {
        ExpectOperator(":");
        AddChild(*out, Conditional());
      }
    }
    ExpectOperator(close);
    return out;
  }

  ExpressionPtr Postfix(ExpressionPtr e) {
    for (;;) {
      if (SkipOperator(".")) {
        if (Now().type == TokenType::kInteger) {
          e = MakeWith(ExpressionType::kItem, "", std::move(e), Number(Take()));
        } else {
          std::string name = ExpectName();
          e = MakeWith(ExpressionType::kAttribute, std::move(name), std::move(e));
        }
      } else if (SkipOperator("[")) {
        e = Subscript(std::move(e));
      } else if (IsOperator("(")) {
        e = MakeWith(ExpressionType::kCall, "", std::move(e));
        CallArguments(*e);
      } else {
        return e;
      }
    }
  }
  ExpressionPtr Subscript(ExpressionPtr e) {
    ExpressionPtr parts[3];
    int colons = 0;
    while (!IsOperator("]")) {
      if (SkipOperator(":")) {
        if (++colons > 2) SyntaxError("a slice has at most two colons", line());
      } else {
        if (parts[colons]) SyntaxError("expected ']', found " + Describe(), line());
        parts[colons] = Conditional();
      }
    }
    ExpectOperator("]");
    if (colons == 0) {
      if (!parts[0]) SyntaxError("an empty subscript", line());
      return MakeWith(ExpressionType::kItem, "", std::move(e), std::move(parts[0]));
    }
    auto slice = MakeWith(ExpressionType::kSlice, "", std::move(e));
    for (ExpressionPtr& part : parts) AddChild(*slice, std::move(part));
    return slice;
  }
  void CallArguments(Expression& e) {
    ExpectOperator("(");
    while (!IsOperator(")")) {
      if (!e.positional.empty() || !e.named.empty()) ExpectOperator(",");
      if (IsOperator(")")) break;
      if (Now().type == TokenType::kName && AheadIsOperator("=")) {
        std::string name = Take().text;
        ++at_;
        e.named.emplace_back(std::move(name), Conditional());
        Adopt(e, e.named.back().second);
      } else {
        if (IsOperator("*") || IsOperator("**"))
          Unsupported("* and ** arguments are not supported", line());
        if (!e.named.empty()) SyntaxError("an argument by position after one by name", line());
        e.positional.push_back(Conditional());
        Adopt(e, e.positional.back());
      }
    }
    ExpectOperator(")");
  }

  // `| name(args) | name ...`; the first without its bar when `bare`. `e` may be null: the text of
  // a block goes there.
  ExpressionPtr FilterChain(ExpressionPtr e, bool bare) {
    while (bare || SkipOperator("|")) {
      bare = false;
      const int at_line = line();
      std::string name = ExpectName();
      if (!HasFilter(name)) Unsupported("there is no filter '" + name + "'", at_line);
      auto out = Make(ExpressionType::kFilter, std::move(name));
      AddChild(*out, std::move(e));
      if (IsOperator("(")) CallArguments(*out);
      e = std::move(out);
    }
    return e;
  }
  ExpressionPtr FiltersAndTests(ExpressionPtr e) {
    for (;;) {
      if (IsOperator("|")) {
        e = FilterChain(std::move(e), false);
      } else if (SkipName("is")) {
        e = Test(std::move(e));
      } else if (IsOperator("(")) {
        e = MakeWith(ExpressionType::kCall, "", std::move(e));
        CallArguments(*e);
      } else {
        return e;
      }
    }
  }
  ExpressionPtr Test(ExpressionPtr e) {
    const bool negate = SkipName("not");
    const int at_line = line();
    std::string name = ExpectName();
    if (!HasTest(name)) Unsupported("there is no test 'is " + name + "'", at_line);
    auto test = MakeWith(ExpressionType::kTest, std::move(name), std::move(e));
    const TokenType next = Now().type;
    if (IsOperator("(")) {
      CallArguments(*test);
    } else if ((next == TokenType::kName && !IsKeyword(Now().text)) || next == TokenType::kString ||
               next == TokenType::kInteger ||
               // `x is divisibleby 3`
               next == TokenType::kFloat || IsOperator("[") || IsOperator("{")) {
      test->positional.push_back(Postfix(Primary()));
      Adopt(*test, test->positional.back());
    }
    return negate ? MakeWith(ExpressionType::kNot, "", std::move(test)) : std::move(test);
  }
  static bool IsKeyword(std::string_view name) {
    for (const char* word : {"and", "or", "not", "in", "is", "if", "else", "recursive"}) {
      if (name == word) return true;
    }
    return false;
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nested_ = 0, blocks_ = 0, loops_ = 0;
};

}  // namespace

Body ParseTemplate(std::string_view source) { return Parser(source).Run(); }

}  // namespace plumb::jinja
