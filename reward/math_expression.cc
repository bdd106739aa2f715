#include "reward/math_expression.h"

#include <algorithm>

namespace plumb::reward {

MathExpression MathExpression::Constant(const BigRational& value) {
  MathExpression e;
  e.numbers_ = {value};
  e.nodes_ = {{MathOp::kNumber, -1, -1, 0}};
  return e;
}

MathExpression MathExpression::Join(MathOp op, const MathExpression& a, const MathExpression& b) {
  MathExpression out = a;
  const int nodes = static_cast<int>(a.nodes_.size()), numbers = static_cast<int>(a.numbers_.size());
  out.numbers_.insert(out.numbers_.end(), b.numbers_.begin(), b.numbers_.end());
  for (MathNode node : b.nodes_) {
    if (node.left >= 0) node.left += nodes;
    if (node.right >= 0) node.right += nodes;
    if (node.op == MathOp::kNumber) node.index += numbers;
    if (node.op == MathOp::kSymbol) {
      const std::string& name = b.symbols_[static_cast<size_t>(node.index)];
      auto it = std::find(out.symbols_.begin(), out.symbols_.end(), name);
      if (it == out.symbols_.end()) it = out.symbols_.insert(out.symbols_.end(), name);
      node.index = static_cast<int>(it - out.symbols_.begin());
    }
    out.nodes_.push_back(node);
  }
  out.nodes_.push_back({op, nodes - 1, out.root(), -1});
  return out;
}

bool MathExpression::Has(MathOp op) const {
  return std::any_of(nodes_.begin(), nodes_.end(), [op](const MathNode& n) { return n.op == op; });
}

std::string MathExpression::LoneSymbol() const {
  if (nodes_.size() != 1) return "";
  if (nodes_[0].op == MathOp::kSymbol) return symbols_[static_cast<size_t>(nodes_[0].index)];
  if (nodes_[0].op == MathOp::kImaginary) return "i";
  if (nodes_[0].op == MathOp::kEuler) return "e";
  return "";
}

std::vector<MathExpression> MathExpression::Signed() const {
  std::vector<size_t> places;
  bool linked = false;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].op == MathOp::kPlusMinus || nodes_[i].op == MathOp::kMinusPlus) places.push_back(i);
    linked = linked || nodes_[i].op == MathOp::kMinusPlus;
  }
  if (places.empty()) return {*this};
  if (places.size() > 4) return {};
  std::vector<MathExpression> out;
  const unsigned choices = linked ? 2 : 1u << places.size();
  for (unsigned choice = 0; choice < choices; ++choice) {
    MathExpression e = *this;
    for (size_t i = 0; i < places.size(); ++i) {
      MathOp& op = e.nodes_[places[i]].op;
      const bool first = linked ? choice == 0 : (choice >> i & 1) == 0;
      op = (op == MathOp::kPlusMinus) == first ? MathOp::kAdd : MathOp::kSubtract;
    }
    out.push_back(std::move(e));
  }
  return out;
}

}  // namespace plumb::reward
