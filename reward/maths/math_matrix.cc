#include "reward/maths/math_matrix.h"

namespace plumb::reward {
namespace {

using Kind = MathObject::Kind;

bool Holds(const MathObject& o) { return o.kind == Kind::kMatrix || o.kind == Kind::kTuple; }
bool Cell(const MathObject& o) { return o.kind == Kind::kQuantity && !o.quantities[0].unit; }

MathObject WithValue(const MathObject& cell, MathExpression value) {
  MathObject out = cell;
  out.quantities = {{std::move(value), std::nullopt}};
  return out;
}

}  // namespace

std::optional<MathObject> Transposed(const MathObject& matrix) {
  if (matrix.kind != Kind::kMatrix || matrix.items.empty()) return matrix;
  MathObject out = matrix;
  out.items.assign(matrix.items[0].items.size(), MathObject());
  for (MathObject& row : out.items) row.kind = Kind::kTuple;
  for (const MathObject& row : matrix.items) {
    if (row.items.size() != out.items.size()) return std::nullopt;
    for (size_t i = 0; i < row.items.size(); ++i) out.items[i].items.push_back(row.items[i]);
  }
  return out;
}

std::optional<MathObject> Scaled(const MathObject& matrix, const MathExpression& factor) {
  if (Cell(matrix))
    return WithValue(matrix,
                     MathExpression::Join(MathOp::kMultiply, factor, matrix.quantities[0].value));
  if (!Holds(matrix)) return std::nullopt;
  MathObject out = matrix;
  for (MathObject& item : out.items) {
    auto scaled = Scaled(item, factor);
    if (!scaled) return std::nullopt;
    item = std::move(*scaled);
  }
  return out;
}

std::optional<MathObject> Added(const MathObject& a, const MathObject& b) {
  if (Cell(a) && Cell(b))
    return WithValue(
        a, MathExpression::Join(MathOp::kAdd, a.quantities[0].value, b.quantities[0].value));
  if (!Holds(a) || a.kind != b.kind || a.items.size() != b.items.size()) return std::nullopt;
  MathObject out = a;
  for (size_t i = 0; i < a.items.size(); ++i) {
    auto sum = Added(a.items[i], b.items[i]);
    if (!sum) return std::nullopt;
    out.items[i] = std::move(*sum);
  }
  return out;
}

}  // namespace plumb::reward
