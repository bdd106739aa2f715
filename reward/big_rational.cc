#include "reward/big_rational.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace plumb::reward {
namespace {

using Limbs = std::vector<uint32_t>;

void Trim(Limbs* a) {
  while (!a->empty() && a->back() == 0) a->pop_back();
}

size_t Bits(const Limbs& a) {
  return a.empty() ? 0 : 32 * (a.size() - 1) + static_cast<size_t>(std::bit_width(a.back()));
}

int CompareLimbs(const Limbs& a, const Limbs& b) {
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  for (size_t i = a.size(); i-- > 0;) {
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  }
  return 0;
}

Limbs AddLimbs(const Limbs& a, const Limbs& b) {
  Limbs out;
  out.reserve(std::max(a.size(), b.size()) + 1);
  uint64_t carry = 0;
  for (size_t i = 0; i < std::max(a.size(), b.size()) || carry > 0; ++i) {
    carry += (i < a.size() ? a[i] : 0ull) + (i < b.size() ? b[i] : 0ull);
    out.push_back(static_cast<uint32_t>(carry));
    carry >>= 32;
  }
  return out;
}

// REQUIRES: a >= b.
Limbs SubtractLimbs(const Limbs& a, const Limbs& b) {
  Limbs out(a.size());
  int64_t borrow = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    int64_t digit = static_cast<int64_t>(a[i]) - (i < b.size() ? static_cast<int64_t>(b[i]) : 0) + borrow;
    borrow = digit < 0 ? -1 : 0;
    out[i] = static_cast<uint32_t>(digit & 0xffffffff);
  }
  Trim(&out);
  return out;
}

Limbs MultiplyLimbs(const Limbs& a, const Limbs& b) {
  Limbs out(a.size() + b.size(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    uint64_t carry = 0;
    for (size_t j = 0; j < b.size(); ++j) {
      carry += static_cast<uint64_t>(a[i]) * b[j] + out[i + j];
      out[i + j] = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
    out[i + b.size()] = static_cast<uint32_t>(carry);
  }
  Trim(&out);
  return out;
}

// Quotient into `quotient`, remainder returned. REQUIRES: b != 0.
Limbs DivideLimbs(const Limbs& a, const Limbs& b, Limbs* quotient) {
  if (CompareLimbs(a, b) < 0) {
    quotient->clear();
    return a;
  }
  if (b.size() == 1) {
    quotient->assign(a.size(), 0);
    uint64_t rest = 0;
    for (size_t i = a.size(); i-- > 0;) {
      rest = rest << 32 | a[i];
      (*quotient)[i] = static_cast<uint32_t>(rest / b[0]);
      rest %= b[0];
    }
    Trim(quotient);
    return rest == 0 ? Limbs{} : Limbs{static_cast<uint32_t>(rest)};
  }
  const int shift = std::countl_zero(b.back());
  const auto shifted = [shift](const Limbs& in) {
    Limbs out(in.size() + 1, 0);
    for (size_t i = 0; i < in.size(); ++i) {
      const uint64_t wide = static_cast<uint64_t>(in[i]) << shift;
      out[i] |= static_cast<uint32_t>(wide);
      out[i + 1] = static_cast<uint32_t>(wide >> 32);
    }
    return out;
  };
  Limbs u = shifted(a), v = shifted(b);
  v.pop_back();
  const size_t n = v.size(), m = u.size() - n;
  quotient->assign(m, 0);
  for (size_t j = m; j-- > 0;) {
    const uint64_t top = static_cast<uint64_t>(u[j + n]) << 32 | u[j + n - 1];
    uint64_t guess = top / v[n - 1], rest = top % v[n - 1];
    while (guess >> 32 != 0 || guess * v[n - 2] > (rest << 32 | u[j + n - 2])) {
      --guess;
      rest += v[n - 1];
      if (rest >> 32 != 0) break;
    }
    int64_t borrow = 0;
    uint64_t carry = 0;
    for (size_t i = 0; i < n; ++i) {
      carry += guess * v[i];
      const int64_t digit = static_cast<int64_t>(u[i + j]) - static_cast<int64_t>(carry & 0xffffffff) + borrow;
      u[i + j] = static_cast<uint32_t>(digit & 0xffffffff);
      borrow = digit >> 32;
      carry >>= 32;
    }
    const int64_t digit = static_cast<int64_t>(u[j + n]) - static_cast<int64_t>(carry) + borrow;
    u[j + n] = static_cast<uint32_t>(digit & 0xffffffff);
    if (digit < 0) {  // one too many: add back
      --guess;
      uint64_t sum = 0;
      for (size_t i = 0; i < n; ++i) {
        sum += static_cast<uint64_t>(u[i + j]) + v[i];
        u[i + j] = static_cast<uint32_t>(sum);
        sum >>= 32;
      }
      u[j + n] += static_cast<uint32_t>(sum);
    }
    (*quotient)[j] = static_cast<uint32_t>(guess);
  }
  Trim(quotient);
  Limbs remainder(n);
  for (size_t i = 0; i < n; ++i) {
    const uint64_t wide = u[i] | static_cast<uint64_t>(u[i + 1]) << 32;
    remainder[i] = static_cast<uint32_t>(wide >> shift);
  }
  Trim(&remainder);
  return remainder;
}

Limbs Gcd(Limbs a, Limbs b) {
  Limbs ignored;
  while (!b.empty()) {
    Limbs rest = DivideLimbs(a, b, &ignored);
    a = std::move(b);
    b = std::move(rest);
  }
  return a;
}

Limbs FromUint64(uint64_t value) {
  Limbs out = {static_cast<uint32_t>(value), static_cast<uint32_t>(value >> 32)};
  Trim(&out);
  return out;
}

// The three highest limbs, the others as a power of two in `exponent`.
long double HighLimbs(const Limbs& a, int* exponent) {
  *exponent = 0;
  long double value = 0;
  for (size_t i = a.size(), taken = 0; i-- > 0 && taken < 3; ++taken) {
    value = value * 4294967296.0L + static_cast<long double>(a[i]);
    *exponent = static_cast<int>(32 * i);
  }
  return value;
}

// n-th root rounded down, by bisection over bits. Bounded: at most 2048 / n bits, each one power.
std::optional<Limbs> ExactRoot(const Limbs& a, int64_t n) {
  if (a.empty() || n == 1) return a;
  Limbs root;
  const size_t root_bits = (Bits(a) + static_cast<size_t>(n) - 1) / static_cast<size_t>(n);
  root.assign(root_bits / 32 + 1, 0);
  for (size_t bit = root_bits; bit-- > 0;) {
    root[bit / 32] |= 1u << (bit % 32);
    Limbs trimmed = root, power = {1};
    Trim(&trimmed);
    for (int64_t i = 0; i < n && CompareLimbs(power, a) <= 0; ++i) power = MultiplyLimbs(power, trimmed);
    const int order = CompareLimbs(power, a);
    if (order == 0) return trimmed;
    if (order > 0) root[bit / 32] &= ~(1u << (bit % 32));
  }
  return std::nullopt;
}

}  // namespace

BigRational::BigRational(int64_t value)
    : negative_(value < 0),
      numerator_(FromUint64(value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value))) {}

std::optional<BigRational> BigRational::Make(bool negative, Limbs numerator, Limbs denominator) {
  if (denominator.empty()) return std::nullopt;
  BigRational out;
  if (numerator.empty()) return out;
  if (denominator != Limbs{1}) {
    const Limbs common = Gcd(numerator, denominator);
    if (common != Limbs{1}) {
      Limbs quotient;
      DivideLimbs(numerator, common, &quotient);
      numerator.swap(quotient);
      DivideLimbs(denominator, common, &quotient);
      denominator.swap(quotient);
    }
  }
  if (Bits(numerator) > kMaxBits || Bits(denominator) > kMaxBits) return std::nullopt;
  out.negative_ = negative;
  out.numerator_ = std::move(numerator);
  out.denominator_ = std::move(denominator);
  return out;
}

std::optional<BigRational> BigRational::FromDecimal(std::string_view digits, int exponent) {
  // 600 digits and exponents are within kMaxBits (3.33 bits a digit); what is longer is refused before any work.
  if (digits.size() > 600 || std::abs(exponent) > 600) return std::nullopt;
  Limbs value;
  bool point = false, any = false;
  for (char c : digits) {
    if (c == '.' && !point) {
      point = true;
      continue;
    }
    if (c < '0' || c > '9') return std::nullopt;
    any = true;
    if (point) --exponent;
    uint64_t carry = static_cast<uint64_t>(c - '0');
    for (uint32_t& limb : value) {
      carry += static_cast<uint64_t>(limb) * 10;
      limb = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
    if (carry > 0) value.push_back(static_cast<uint32_t>(carry));
  }
  if (!any) return std::nullopt;
  const auto scale = BigRational(10).Power(exponent);
  const auto whole = Make(false, std::move(value), {1});
  if (!scale || !whole) return std::nullopt;
  return whole->Times(*scale);
}

std::optional<BigRational> BigRational::Plus(const BigRational& other) const {
  const Limbs a = MultiplyLimbs(numerator_, other.denominator_), b = MultiplyLimbs(other.numerator_, denominator_);
  Limbs below = MultiplyLimbs(denominator_, other.denominator_);
  if (negative_ == other.negative_) return Make(negative_, AddLimbs(a, b), std::move(below));
  if (CompareLimbs(a, b) >= 0) return Make(negative_, SubtractLimbs(a, b), std::move(below));
  return Make(other.negative_, SubtractLimbs(b, a), std::move(below));
}

std::optional<BigRational> BigRational::Minus(const BigRational& other) const { return Plus(other.Negated()); }

std::optional<BigRational> BigRational::Times(const BigRational& other) const {
  return Make(negative_ != other.negative_, MultiplyLimbs(numerator_, other.numerator_),
              MultiplyLimbs(denominator_, other.denominator_));
}

std::optional<BigRational> BigRational::Over(const BigRational& other) const {
  return Make(negative_ != other.negative_, MultiplyLimbs(numerator_, other.denominator_),
              MultiplyLimbs(denominator_, other.numerator_));
}

std::optional<BigRational> BigRational::Power(int64_t exponent) const {
  if (exponent < 0) {
    const auto inverse = BigRational(1).Over(*this);
    if (!inverse || exponent == INT64_MIN) return std::nullopt;
    return inverse->Power(-exponent);
  }
  if (zero()) return BigRational(exponent == 0 ? 1 : 0);
  const size_t bits = std::max(Bits(numerator_), Bits(denominator_));
  if (bits > 1 && static_cast<uint64_t>(exponent) > 2 * kMaxBits / (bits - 1)) return std::nullopt;
  BigRational out(1), square = *this;
  for (uint64_t rest = static_cast<uint64_t>(exponent); rest > 0;) {
    if (rest & 1) {
      auto product = out.Times(square);
      if (!product) return std::nullopt;
      out = std::move(*product);
    }
    rest >>= 1;
    if (rest > 0) {
      auto product = square.Times(square);
      if (!product) return std::nullopt;
      square = std::move(*product);
    }
  }
  return out;
}

std::optional<BigRational> BigRational::Root(int64_t n) const {
  if (n < 1 || n > 1024 || (negative_ && n % 2 == 0)) return std::nullopt;
  const auto above = ExactRoot(numerator_, n), below = ExactRoot(denominator_, n);
  if (!above || !below) return std::nullopt;
  return Make(negative_, *above, *below);
}

BigRational BigRational::Negated() const {
  BigRational out = *this;
  out.negative_ = !negative_ && !zero();
  return out;
}

BigRational BigRational::Absolute() const {
  BigRational out = *this;
  out.negative_ = false;
  return out;
}

BigRational BigRational::Numerator() const {
  BigRational out = *this;
  out.denominator_ = {1};
  return out;
}

BigRational BigRational::Denominator() const {
  BigRational out(1);
  out.numerator_ = denominator_;
  return out;
}

std::strong_ordering BigRational::Compare(const BigRational& other) const {
  if (negative_ != other.negative_) return negative_ ? std::strong_ordering::less : std::strong_ordering::greater;
  const int order =
      CompareLimbs(MultiplyLimbs(numerator_, other.denominator_), MultiplyLimbs(other.numerator_, denominator_));
  return (negative_ ? -order : order) <=> 0;
}

std::optional<int64_t> BigRational::ToInt64() const {
  if (!integer() || numerator_.size() > 2 || Bits(numerator_) > 62) return std::nullopt;
  int64_t value = 0;
  for (size_t i = numerator_.size(); i-- > 0;) value = value << 32 | numerator_[i];
  return negative_ ? -value : value;
}

long double BigRational::ToLongDouble() const {
  int up = 0, down = 0;
  const long double above = HighLimbs(numerator_, &up), below = HighLimbs(denominator_, &down);
  const long double value = std::ldexp(above / below, up - down);
  return negative_ ? -value : value;
}

std::optional<uint64_t> BigRational::Modulo(uint64_t prime) const {
  const auto reduce = [prime](const Limbs& limbs) {
    uint64_t value = 0;
    for (size_t i = limbs.size(); i-- > 0;) {
      value = (MultiplyModulo(value, 4294967296ull % prime, prime) + limbs[i] % prime) % prime;
    }
    return value;
  };
  const uint64_t below = reduce(denominator_);
  if (below == 0) return std::nullopt;
  const uint64_t value = MultiplyModulo(reduce(numerator_), PowerModulo(below, prime - 2, prime), prime);
  return negative_ && value != 0 ? prime - value : value;
}

uint64_t MultiplyModulo(uint64_t a, uint64_t b, uint64_t prime) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(static_cast<Wide>(a) * b % prime);
}

uint64_t PowerModulo(uint64_t base, uint64_t exponent, uint64_t prime) {
  uint64_t out = 1 % prime;
  for (base %= prime; exponent > 0; exponent >>= 1) {
    if (exponent & 1) out = MultiplyModulo(out, base, prime);
    base = MultiplyModulo(base, base, prime);
  }
  return out;
}

}  // namespace plumb::reward
