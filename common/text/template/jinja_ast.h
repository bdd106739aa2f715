// A chat template as a tree.
//
// Thread safety: const after parsing. Ownership: a node owns its children. Every expression knows
// its height, and the parser refuses trees higher than kMaxHeight: evaluation and destruction
// recurse.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/text/template/jinja_value.h"

namespace plumb::jinja {

inline constexpr int kMaxHeight = 200;

enum class ExpressionType {
  kConstant,   // value
  kName,       // text
  kList,       // children
  kTuple,      // children
  kDict,       // children: key, value, key, value, ...
  kAttribute,  // children[0].text
  kItem,       // children[0][children[1]]
  kSlice,      // children[0][children[1]:children[2]:children[3]], absent ones null
  kCall,       // children[0](arguments)
  kFilter,     // children[0] | text(arguments)
  kTest,       // children[0] is text(arguments)
  kNot,
  kNegate,
  kPlus,
  kBinary,      // text: + - * / // % ** ~ and or
  kCompare,     // children[0] op children[1] op children[2] ...; operators in `names`
  kConditional  // children: condition, then, otherwise (may be null)
};

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  ExpressionType type = ExpressionType::kConstant;
  int line = 1;
  int height = 1;
  std::string text;
  Value value;
  std::vector<ExpressionPtr> children;
  std::vector<ExpressionPtr> positional;                     // of calls, filters and tests
  std::vector<std::pair<std::string, ExpressionPtr>> named;  // of calls, filters and tests
  std::vector<std::string> names;                            // operators of a kCompare
};

enum class StatementType {
  kText,   // text
  kPrint,  // expression
  // targets, expression, condition (may be null), body, otherwise, recursive is not supported
  kFor,
  kIf,           // branches; otherwise
  kSet,          // targets = expression, or targets[0].attribute = expression
  kSetBlock,     // targets[0] = rendered body, through `filter`
  kMacro,        // text(parameters)
  kFilterBlock,  // body through `filter`
  kWith,         // targets[i] = expressions[i] within body
  kScope,        // body as it is: {% generation %}
  kBreak,
  kContinue,
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct Statement {
  StatementType type = StatementType::kText;
  int line = 1;
  std::string text;
  std::string attribute;
  std::vector<std::string> targets;
  ExpressionPtr expression, condition;
  // a chain of kFilter whose innermost child is null: the rendered text goes there
  ExpressionPtr filter;
  Body body, otherwise;
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  // of a macro, with defaults (null: none); of kWith
  std::vector<std::pair<std::string, ExpressionPtr>> parameters;
};

}  // namespace plumb::jinja
