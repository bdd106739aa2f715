#include "reward/maths/math_value.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <numbers>
#include <string>
#include <string_view>
#include <vector>

namespace plumb::reward {
namespace {

constexpr uint64_t kPrime = kFieldPrime;
constexpr int kFieldPoints = 3, kSignedPoints = 16, kPositivePoints = 4;
using Complex = std::complex<long double>;
constexpr long double kUnit = std::numeric_limits<long double>::epsilon() / 2;

// A letter's value at a point, from its name: SplitMix64 over FNV-1a.
uint64_t Seeded(std::string_view name, int point) {
  uint64_t hash = 14695981039346656037ull;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  hash += 0x9e3779b97f4a7c15ull * static_cast<uint64_t>(point + 1);
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9ull;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebull;
  return hash ^ (hash >> 31);
}

const MathNode& Node(const MathExpression& e, int node) {
  return e.nodes()[static_cast<size_t>(node)];
}
const BigRational& NumberOf(const MathExpression& e, const MathNode& n) {
  return e.numbers()[static_cast<size_t>(n.index)];
}

std::optional<BigRational> Factorial(int64_t n) {
  BigRational out(1);
  if (n < 0 || n > 1000) return std::nullopt;
  for (int64_t i = 2; i <= n; ++i) {
    auto next = out.Times(BigRational(i));
    if (!next) return std::nullopt;
    out = *next;
  }
  return out;
}

std::optional<BigRational> Binomial(int64_t n, int64_t k) {
  if (n < 0 || k < 0 || n > 100000) return std::nullopt;
  if (k > n) return BigRational(0);
  k = std::min(k, n - k);
  if (k > 1000) return std::nullopt;
  BigRational out(1);
  for (int64_t i = 1; i <= k; ++i) {
    auto up = out.Times(BigRational(n - k + i));
    auto next = up ? up->Over(BigRational(i)) : std::nullopt;
    if (!next) return std::nullopt;
    out = *next;
  }
  return out;
}

BigRational Floor(const BigRational& x) {
  // Only used for values that fit: beyond 2^62 a floor is left to floats.
  const auto above = x.Numerator().ToInt64(), below = x.Denominator().ToInt64();
  if (!above || !below) return x;
  int64_t q = *above / *below;
  if (*above % *below != 0 && *above < 0) --q;
  return BigRational(q);
}

std::optional<BigRational> RationalPower(const BigRational& base, const BigRational& exponent) {
  const auto n = exponent.Numerator().ToInt64(), d = exponent.Denominator().ToInt64();
  if (!n || !d) return std::nullopt;
  const auto root = base.Root(*d);
  return root ? root->Power(*n) : std::nullopt;
}

std::optional<BigRational> Exact(const MathExpression& e, int place) {
  const MathNode& n = Node(e, place);
  using Op = MathOp;
  if (n.op == Op::kNumber) return NumberOf(e, n);
  if (n.op <= Op::kInfinity) return std::nullopt;
  std::optional<BigRational> a, b;
  if (n.left >= 0 && !(a = Exact(e, n.left))) return std::nullopt;
  if (n.right >= 0 && !(b = Exact(e, n.right))) return std::nullopt;
  switch (n.op) {
    case Op::kAdd: return a->Plus(*b);
    case Op::kSubtract: return a->Minus(*b);
    case Op::kMultiply: return a->Times(*b);
    case Op::kDivide: return a->Over(*b);
    case Op::kPower: return RationalPower(*a, *b);
    case Op::kRoot: {
      const auto degree = a->ToInt64();
      return degree ? b->Root(*degree) : std::nullopt;
    }
    case Op::kBinomial: {
      const auto up = a->ToInt64(), down = b->ToInt64();
      return up && down ? Binomial(*up, *down) : std::nullopt;
    }
    case Op::kFactorial: {
      const auto value = b->ToInt64();
      return value ? Factorial(*value) : std::nullopt;
    }
    case Op::kLogarithm: {
      // Whole powers only, e.g. \log_2 8.
      if (a->Compare(BigRational(1)) <= 0 || b->negative() || b->zero()) return std::nullopt;
      const long double guess =
          std::round(std::log(b->ToLongDouble()) / std::log(a->ToLongDouble()));
      if (!std::isfinite(guess) || std::abs(guess) > 2048) return std::nullopt;
      const auto power = a->Power(static_cast<int64_t>(guess));
      if (power && *power == *b) return BigRational(static_cast<int64_t>(guess));
      return std::nullopt;
    }
    case Op::kNegate: return b->Negated();
    case Op::kAbsolute: return b->Absolute();
    case Op::kFloor: {
      const BigRational down = Floor(*b);
      return down.integer() ? std::optional(down) : std::nullopt;
    }
    case Op::kCeiling: {
      const BigRational up = Floor(b->Negated()).Negated();
      return up.integer() ? std::optional(up) : std::nullopt;
    }
    case Op::kExp:
    case Op::kSin:
    case Op::kTan:
    case Op::kAsin:
    case Op::kAtan:
    case Op::kSinh:
    case Op::kTanh:
      if (!b->zero()) return std::nullopt;
      return BigRational(n.op == Op::kExp ? 1 : 0);
    case Op::kCos:
    case Op::kCosh:
    case Op::kSec: return b->zero() ? std::optional(BigRational(1)) : std::nullopt;
    case Op::kLn: return *b == BigRational(1) ? std::optional(BigRational(0)) : std::nullopt;
    case Op::kCot:
    case Op::kCsc:
    case Op::kAcos:
    case Op::kPlusMinus:
    case Op::kMinusPlus:
    case Op::kNumber:
    case Op::kSymbol:
    case Op::kPi:
    case Op::kEuler:
    case Op::kImaginary:
    case Op::kInfinity: return std::nullopt;
  }
  return std::nullopt;
}

// In the field. kNone: no rational function; kUndefined: a division by zero at this point.
struct FieldValue {
  enum class State : uint8_t { kValue, kNone, kUndefined } state = State::kNone;
  uint64_t value = 0;
  static FieldValue Of(uint64_t v) { return {State::kValue, v}; }
};

FieldValue InField(const MathExpression& e, int place, int point) {
  using Op = MathOp;
  using State = FieldValue::State;
  const MathNode& n = Node(e, place);
  switch (n.op) {
    case Op::kNumber: {
      const auto value = NumberOf(e, n).Modulo(kPrime);
      return value ? FieldValue::Of(*value) : FieldValue{State::kUndefined};
    }
    case Op::kSymbol:
      return FieldValue::Of(Seeded(e.symbols()[static_cast<size_t>(n.index)], point) % kPrime);
    case Op::kImaginary: return FieldValue::Of(kFieldMinusOneRoot);
    case Op::kAdd:
    case Op::kSubtract:
    case Op::kMultiply:
    case Op::kDivide: {
      const FieldValue a = InField(e, n.left, point);
      if (a.state != State::kValue) return a;
      const FieldValue b = InField(e, n.right, point);
      if (b.state != State::kValue) return b;
      if (n.op == Op::kAdd) return FieldValue::Of((a.value + b.value) % kPrime);
      if (n.op == Op::kSubtract) return FieldValue::Of((a.value + kPrime - b.value) % kPrime);
      if (n.op == Op::kMultiply) return FieldValue::Of(MultiplyModulo(a.value, b.value, kPrime));
      if (b.value == 0) return {State::kUndefined};
      return FieldValue::Of(
          MultiplyModulo(a.value, PowerModulo(b.value, kPrime - 2, kPrime), kPrime));
    }
    case Op::kNegate: {
      const FieldValue b = InField(e, n.right, point);
      if (b.state != State::kValue) return b;
      return FieldValue::Of((kPrime - b.value) % kPrime);
    }
    case Op::kPower: {
      const auto exponent = Exact(e, n.right);
      const auto whole = exponent ? exponent->ToInt64() : std::nullopt;
      if (!whole) break;
      const FieldValue a = InField(e, n.left, point);
      if (a.state != State::kValue) return a;
      if (a.value == 0 && *whole < 0) return {State::kUndefined};
      const uint64_t size = static_cast<uint64_t>(*whole < 0 ? -*whole : *whole);
      const uint64_t power = PowerModulo(a.value, size, kPrime);
      return FieldValue::Of(*whole < 0 ? PowerModulo(power, kPrime - 2, kPrime) : power);
    }
    default: break;
  }
  // A part that is a plain number after all, e.g. \sqrt{4} x.
  if (const auto value = Exact(e, place)) {
    const auto in = value->Modulo(kPrime);
    return in ? FieldValue::Of(*in) : FieldValue{State::kUndefined};
  }
  return {};
}

struct Approximate {
  Complex value;
  long double error = 0;
};
constexpr long double kNan = std::numeric_limits<long double>::quiet_NaN();
const Approximate kUndefined = {{kNan, kNan}, 0};

bool Finite(const Approximate& a) {
  return std::isfinite(a.value.real()) && std::isfinite(a.value.imag()) && std::isfinite(a.error);
}

Approximate Real(long double value) { return {value, kUnit * std::abs(value)}; }

Approximate Add(const Approximate& a, const Approximate& b, long double sign) {
  const auto value = a.value + sign * b.value;
  return {value, a.error + b.error + kUnit * std::abs(value)};
}
Approximate Multiply(const Approximate& a, const Approximate& b) {
  const auto value = a.value * b.value;
  const long double x = std::abs(a.value), y = std::abs(b.value);
  return {value, x * b.error + y * a.error + a.error * b.error + 4 * kUnit * std::abs(value)};
}
Approximate Divide(const Approximate& a, const Approximate& b) {
  const long double below = std::abs(b.value) - b.error;
  if (!(below > 0)) return kUndefined;
  const auto value = a.value / b.value;
  return {value, (a.error + std::abs(value) * b.error) / below + 8 * kUnit * std::abs(value)};
}
// f at a, its derivative there bounding what a's error does.
Approximate Apply(const Approximate& a, Complex value, Complex derivative) {
  return {value, std::abs(derivative) * a.error + 8 * kUnit * std::abs(value)};
}
bool IsReal(const Approximate& a) { return a.value.imag() == 0; }

Approximate Logarithm(const Approximate& a) {
  if (a.value == 0.0L) return kUndefined;
  Approximate out = Apply(a, std::log(a.value), 1.0L / a.value);
  out.error += kUnit;  // near 1 the logarithm is small and its argument is not exact
  return out;
}

Approximate PowerOf(const Approximate& a, const Approximate& b,
                    const std::optional<BigRational>& exact) {
  if (exact && exact->integer()) {
    const auto whole = exact->ToInt64();
    if (whole && std::abs(*whole) <= 64) {
      Approximate out = Real(1);
      out.error = 0;
      for (int64_t i = 0; i < std::abs(*whole); ++i) out = Multiply(out, a);
      return *whole < 0 ? Divide({1.0L, 0}, out) : out;
    }
  }
  if (a.value == 0.0L) {
    if (!(b.value.real() > 0) || a.error > 0) return kUndefined;
    return {0, 0};
  }
  const Complex c = b.value;
  // The real odd root of a negative number.
  if (IsReal(a) && a.value.real() < 0 && exact) {
    const auto above = exact->Numerator().ToInt64(), below = exact->Denominator().ToInt64();
    if (above && below && *below % 2 != 0) {
      const long double size = std::pow(-a.value.real(), c.real());
      const long double value = *above % 2 == 0 ? size : -size;
      return {value, std::abs(c.real() * size / a.value.real()) * a.error +
                         std::abs(std::log(-a.value.real()) * size) * b.error + 8 * kUnit * size};
    }
  }
  Complex value;
  if (IsReal(a) && IsReal(b) && a.value.real() > 0) {
    value = std::pow(a.value.real(), c.real());
  } else {
    value = std::pow(a.value, c);
  }
  const long double size = std::abs(value);
  return {value, std::abs(c / a.value) * size * a.error +
                     std::abs(std::log(a.value)) * size * b.error +
                     (8 + 4 * std::abs(c * std::log(a.value))) * kUnit * size};
}

Approximate Unary(MathOp op, const Approximate& b) {
  using Op = MathOp;
  const Complex z = b.value;
  switch (op) {
    case Op::kNegate: return {-z, b.error};
    case Op::kAbsolute: return {std::abs(z), b.error + 2 * kUnit * std::abs(z)};
    case Op::kFloor:
    case Op::kCeiling: {
      const long double near = std::round(z.real());
      if (!IsReal(b) || std::abs(z.real() - near) <= 4 * b.error) return kUndefined;
      return {op == Op::kFloor ? std::floor(z.real()) : std::ceil(z.real()), 0};
    }
    case Op::kExp: return Apply(b, std::exp(z), std::exp(z));
    case Op::kLn: return Logarithm(b);
    case Op::kSin: return Apply(b, std::sin(z), std::cos(z));
    case Op::kCos: return Apply(b, std::cos(z), std::sin(z));
    case Op::kTan:
    case Op::kCot:
    case Op::kSec:
    case Op::kCsc: {
      const Approximate sine = Apply(b, std::sin(z), std::cos(z)),
                        cosine = Apply(b, std::cos(z), std::sin(z));
      if (op == Op::kTan) return Divide(sine, cosine);
      if (op == Op::kCot) return Divide(cosine, sine);
      return Divide({1.0L, 0}, op == Op::kSec ? cosine : sine);
    }
    case Op::kAsin:
    case Op::kAcos: {
      const auto value = IsReal(b) && std::abs(z.real()) <= 1
                             ? Complex(op == Op::kAsin ? std::asin(z.real()) : std::acos(z.real()))
                             : (op == Op::kAsin ? std::asin(z) : std::acos(z));
      const auto slope = std::sqrt(1.0L - z * z);
      // At +-1 the slope has no bound; the error there is of the order of its root.
      if (std::abs(slope) < 1e-7) return {value, std::sqrt(2 * b.error) + 8 * kUnit};
      return Apply(b, value, 1.0L / slope);
    }
    case Op::kAtan: return Apply(b, std::atan(z), 1.0L / (1.0L + z * z));
    case Op::kSinh: return Apply(b, std::sinh(z), std::cosh(z));
    case Op::kCosh: return Apply(b, std::cosh(z), std::sinh(z));
    case Op::kTanh: return Apply(b, std::tanh(z), 1.0L - std::tanh(z) * std::tanh(z));
    default: return kUndefined;
  }
}

// Where formulas are computed: every combination of signs of four letters, then points with all
// letters positive.
struct FloatPoint {
  int point;
  const std::vector<std::string>& letters;  // of both sides
  bool complex = false;                     // set where some part was no real number

  bool Negative(const std::string& name) const {
    const auto place = std::find(letters.begin(), letters.end(), name) - letters.begin();
    return point < kSignedPoints && (point >> (place % 4) & 1) != 0;
  }
};

Approximate InFloats(const MathExpression& e, int place, FloatPoint& at);

Approximate Compute(const MathExpression& e, int place, FloatPoint& at) {
  using Op = MathOp;
  const MathNode& n = Node(e, place);
  switch (n.op) {
    case Op::kNumber: {
      Approximate out = Real(NumberOf(e, n).ToLongDouble());
      out.error *= 4;
      return out;
    }
    case Op::kSymbol: {
      const std::string& name = e.symbols()[static_cast<size_t>(n.index)];
      const uint64_t bits = Seeded(name, at.point);
      const long double size = 0.3 + 2.4 * static_cast<long double>(bits >> 11) * 0x1p-53;
      return {at.Negative(name) ? -size : size, 0};
    }
    case Op::kPi: return Real(std::numbers::pi_v<long double>);
    case Op::kEuler: return Real(std::numbers::e_v<long double>);
    case Op::kImaginary: return {{0, 1}, 0};
    case Op::kInfinity: return kUndefined;
    default: break;
  }
  const Approximate b = InFloats(e, n.right, at);
  if (!Finite(b)) return kUndefined;
  if (n.left < 0) {
    if (n.op == Op::kFactorial) {
      const auto exact = Exact(e, place);
      return exact ? Real(exact->ToLongDouble()) : kUndefined;
    }
    return Unary(n.op, b);
  }
  const Approximate a = InFloats(e, n.left, at);
  if (!Finite(a)) return kUndefined;
  switch (n.op) {
    case Op::kAdd: return Add(a, b, 1);
    case Op::kSubtract: return Add(a, b, -1);
    case Op::kMultiply: return Multiply(a, b);
    case Op::kDivide: return Divide(a, b);
    case Op::kPower: return PowerOf(a, b, Exact(e, n.right));
    case Op::kRoot: {
      const auto degree = Exact(e, n.left);
      if (degree && *degree == BigRational(2)) {
        const auto value = IsReal(b) && b.value.real() >= 0 ? Complex(std::sqrt(b.value.real()))
                                                            : std::sqrt(b.value);
        const long double size = std::abs(value);
        if (size * size <= 4 * b.error) return {value, 2 * std::sqrt(b.error) + kUnit};
        return {value, b.error / size + 4 * kUnit * size};
      }
      const auto inverse = degree ? BigRational(1).Over(*degree) : std::nullopt;
      const Approximate one = {1.0L, 0};
      return PowerOf(b, Divide(one, a), inverse);
    }
    case Op::kLogarithm: return Divide(Logarithm(b), Logarithm(a));
    case Op::kBinomial: {
      const auto exact = Exact(e, place);
      return exact ? Real(exact->ToLongDouble()) : kUndefined;
    }
    default: return kUndefined;
  }
}

// -0 as an imaginary part would choose the other branch of a root.
Approximate InFloats(const MathExpression& e, int place, FloatPoint& at) {
  Approximate out = Compute(e, place, at);
  if (out.value.imag() == 0) {
    out.value.imag(0);
  } else {
    at.complex = true;
  }
  return out;
}
Approximate InFloats(const MathExpression& e, FloatPoint& at) { return InFloats(e, e.root(), at); }

std::vector<std::string> LettersOf(const MathExpression& a, const MathExpression& b) {
  std::vector<std::string> out = a.symbols();
  for (const std::string& name : b.symbols()) {
    if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(name);
  }
  std::sort(out.begin(), out.end());
  return out;
}

// "Equal" of the header for one point; none where one is not finite.
std::optional<bool> Agree(const Approximate& a, const Approximate& b) {
  if (!Finite(a) || !Finite(b)) return std::nullopt;
  const long double allowed = 4 * (a.error + b.error);
  return allowed <= 1e-9 * (1 + std::abs(a.value)) && std::abs(a.value - b.value) <= allowed;
}

// +1, -1 for (-)\infty alone, else 0.
int InfiniteSign(const MathExpression& e) {
  int sign = 1, place = e.root();
  while (Node(e, place).op == MathOp::kNegate) sign = -sign, place = Node(e, place).right;
  return Node(e, place).op == MathOp::kInfinity ? sign : 0;
}

}  // namespace

std::optional<BigRational> ExactValue(const MathExpression& e) { return Exact(e, e.root()); }

std::optional<double> RealValue(const MathExpression& e) {
  if (const int sign = InfiniteSign(e); sign != 0)
    return sign * std::numeric_limits<double>::infinity();
  if (!e.symbols().empty()) return std::nullopt;
  if (const auto exact = ExactValue(e)) return static_cast<double>(exact->ToLongDouble());
  const std::vector<std::string> none;
  FloatPoint at = {0, none};
  const Approximate a = InFloats(e, at);
  if (!Finite(a) || std::abs(a.value.imag()) > 4 * a.error) return std::nullopt;
  return static_cast<double>(a.value.real());
}

bool SameValue(const MathExpression& a, const MathExpression& b) {
  if (const int x = InfiniteSign(a), y = InfiniteSign(b); x != 0 || y != 0) return x == y;
  const auto x = ExactValue(a), y = ExactValue(b);
  if (x && y) return *x == *y;
  using State = FieldValue::State;
  int asked = 0;
  bool rational = true;
  for (int point = 0; point < kFieldPoints && rational; ++point) {
    const FieldValue u = InField(a, a.root(), point), v = InField(b, b.root(), point);
    rational = u.state != State::kNone && v.state != State::kNone;
    if (u.state != State::kValue || v.state != State::kValue) continue;
    if (u.value != v.value) return false;
    ++asked;
  }
  if (rational) return asked > 0;
  // Letters under roots and logarithms are meant where those are real: \sqrt{ab} =
  // \sqrt{a}\sqrt{b}. Where |..| says that signs matter, and with i, every point counts.
  const auto signs = [](const MathExpression& e) {
    return e.Has(MathOp::kImaginary) || e.Has(MathOp::kAbsolute);
  };
  const std::vector<std::string> letters = LettersOf(a, b);
  const bool real = !letters.empty() && !signs(a) && !signs(b);
  const int points = letters.empty() ? 2 : kSignedPoints + (real ? kPositivePoints : 0);
  int agreed = 0, beyond = 0;
  bool beyond_agrees = true;
  for (int point = 0; point < points; ++point) {
    FloatPoint at = {point, letters};
    const Approximate x = InFloats(a, at), y = InFloats(b, at);
    const auto same = Agree(x, y);
    if (!same) continue;
    if (real && at.complex) {
      ++beyond;
      beyond_agrees = beyond_agrees && *same;
      continue;
    }
    if (!*same) return false;
    ++agreed;
  }
  return agreed >= 2 || (beyond_agrees && agreed + beyond >= 2);
}

bool Proportional(const MathExpression& a, const MathExpression& b, bool positive) {
  // a(p) b(q) = a(q) b(p) for points p, q; the sign of the factor from floats.
  using State = FieldValue::State;
  FieldValue u[kFieldPoints], v[kFieldPoints];
  bool rational = true, defined = true;
  for (int p = 0; p < kFieldPoints; ++p) {
    u[p] = InField(a, a.root(), p), v[p] = InField(b, b.root(), p);
    rational = rational && u[p].state != State::kNone && v[p].state != State::kNone;
    defined = defined && u[p].state == State::kValue && v[p].state == State::kValue;
  }
  if (rational) {
    if (!defined) return false;
    for (int p = 0; p < kFieldPoints; ++p) {
      const int q = (p + 1) % kFieldPoints;
      if (u[p].value == 0 || v[p].value == 0) return false;
      if (MultiplyModulo(u[p].value, v[q].value, kPrime) !=
          MultiplyModulo(u[q].value, v[p].value, kPrime))
        return false;
    }
    if (!positive) return true;
  }
  std::optional<Approximate> factor;
  int agreed = 0;
  const std::vector<std::string> letters = LettersOf(a, b);
  for (int p = 0; p < kSignedPoints; ++p) {
    FloatPoint at = {p, letters};
    const Approximate x = InFloats(a, at), y = InFloats(b, at);
    if (!Finite(x) || !Finite(y)) continue;
    const Approximate ratio = Divide(x, y);
    if (!Finite(ratio)) continue;
    if (std::abs(ratio.value) <= 4 * ratio.error) return false;
    if (positive && !(ratio.value.real() > 0)) return false;
    if (factor && !rational && !Agree(ratio, *factor).value_or(false)) return false;
    factor = ratio;
    ++agreed;
  }
  return agreed >= 2;
}

}  // namespace plumb::reward
