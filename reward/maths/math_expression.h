// A formula as a tree: numbers, symbols and functions of school and competition mathematics.
//
// Purpose: what math_parser.h reads and math_value.h compares.
// Thread safety: a value. Ownership: a MathExpression owns its nodes. A part stands before what is
// made of it; the root is the last node.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "reward/maths/big_rational.h"

namespace plumb::reward {

enum class MathOp : uint8_t {
  kNumber,
  kSymbol,
  kPi,
  kEuler,
  kImaginary,
  kInfinity,  // leaves
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kPower,
  kBinomial,
  kRoot,       // left: the degree, right: the radicand
  kLogarithm,  // left: the base, right: the argument
  kPlusMinus,
  kMinusPlus,
  kNegate,
  kAbsolute,
  kFactorial,
  kFloor,
  kCeiling,
  kExp,
  kLn,  // right only, and all below
  kSin,
  kCos,
  kTan,
  kCot,
  kSec,
  kCsc,
  kAsin,
  kAcos,
  kAtan,
  kSinh,
  kCosh,
  kTanh,
};

struct MathNode {
  MathOp op = MathOp::kNumber;
  int left = -1, right = -1;  // places in nodes
  int index = -1;             // of numbers or symbols, for those leaves
};

class MathExpression {
 public:
  static constexpr size_t kMaxNodes = 400;
  static constexpr int kMaxNesting = 40;

  // A number. The root is the last node.
  static MathExpression Constant(const BigRational& value);
  // a op b, for the binary operations.
  static MathExpression Join(MathOp op, const MathExpression& a, const MathExpression& b);

  const std::vector<MathNode>& nodes() const { return nodes_; }
  const std::vector<BigRational>& numbers() const { return numbers_; }
  const std::vector<std::string>& symbols() const { return symbols_; }
  int root() const { return static_cast<int>(nodes_.size()) - 1; }
  bool Has(MathOp op) const;
  // The name if it is one symbol alone (also `i` and `e`, which may be meant as names), else "".
  std::string LoneSymbol() const;
  // With `by` in the place of every `symbol`.
  MathExpression Replaced(std::string_view symbol, const MathExpression& by) const;
  // What its last operation is applied to. REQUIRES: the root is one with a right side alone.
  MathExpression WithoutRoot() const;
  // Every way to take its \pm and \mp: one by one, together where \mp stands too. Without any:
  // itself. At most 16; none for more.
  std::vector<MathExpression> Signed() const;

 private:
  friend class MathParser;
  // A node of another expression with its number or name; all of another expression.
  void Append(const MathExpression& from, const MathNode& node, int left, int right);
  void Append(const MathExpression& from);
  std::vector<MathNode> nodes_;
  std::vector<BigRational> numbers_;
  std::vector<std::string> symbols_;
};

}  // namespace plumb::reward
