#include "reward/maths/math_expression.h"

#include <algorithm>

namespace plumb::reward {

MathExpression MathExpression::Constant(const BigRational& value) {
  MathExpression e;
  e.numbers_ = {value};
  e.nodes_ = {{MathOp::kNumber, -1, -1, 0}};
  return e;
}

void MathExpression::Append(const MathExpression& from, const MathNode& node, int left, int right) {
  MathNode copy = {node.op, left, right, node.index};
  if (node.op == MathOp::kNumber) {
    copy.index = static_cast<int>(numbers_.size());
    numbers_.push_back(from.numbers_[static_cast<size_t>(node.index)]);
  } else if (node.op == MathOp::kSymbol) {
    const std::string& name = from.symbols_[static_cast<size_t>(node.index)];
    auto it = std::find(symbols_.begin(), symbols_.end(), name);
    if (it == symbols_.end()) it = symbols_.insert(symbols_.end(), name);
    copy.index = static_cast<int>(it - symbols_.begin());
  }
  nodes_.push_back(copy);
}

void MathExpression::Append(const MathExpression& from) {
  const int shift = static_cast<int>(nodes_.size());
  for (const MathNode& node : from.nodes_) {
    Append(from, node, node.left < 0 ? -1 : node.left + shift,
           node.right < 0 ? -1 : node.right + shift);
  }
}

MathExpression MathExpression::Join(MathOp op, const MathExpression& a, const MathExpression& b) {
  MathExpression out = a;
  out.Append(b);
  out.nodes_.push_back({op, a.root(), out.root(), -1});
  return out;
}

MathExpression MathExpression::Replaced(std::string_view symbol, const MathExpression& by) const {
  MathExpression out;
  std::vector<int> at;  // where each node went
  for (const MathNode& node : nodes_) {
    const auto moved = [&](int child) { return child < 0 ? -1 : at[static_cast<size_t>(child)]; };
    if (node.op == MathOp::kSymbol && symbols_[static_cast<size_t>(node.index)] == symbol) {
      out.Append(by);
    } else {
      out.Append(*this, node, moved(node.left), moved(node.right));
    }
    at.push_back(out.root());
  }
  return out;
}

MathExpression MathExpression::WithoutRoot() const {
  MathExpression out = *this;
  out.nodes_.pop_back();
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
    if (nodes_[i].op == MathOp::kPlusMinus || nodes_[i].op == MathOp::kMinusPlus)
      places.push_back(i);
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
