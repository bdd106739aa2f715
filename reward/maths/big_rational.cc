#include "reward/maths/big_rational.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace plumb::reward {
namespace {

static_assert(sizeof(long) == sizeof(int64_t), "GMP takes long where 64 bits are meant");

size_t Bits(const mpz_class& a) { return a == 0 ? 0 : mpz_sizeinbase(a.get_mpz_t(), 2); }

// The 96 highest bits of a's size, the others as a power of two in `exponent`.
long double HighBits(const mpz_class& a, int* exponent) {
  const size_t bits = Bits(a), below = bits > 96 ? bits - 96 : 0;
  const mpz_class top = abs(a) >> below;
  const mpz_class high = top >> 32, low = top & 0xffffffffu;
  *exponent = static_cast<int>(below);
  return static_cast<long double>(high.get_ui()) * 4294967296.0L +
         static_cast<long double>(low.get_ui());
}

}  // namespace

BigRational::BigRational(int64_t value) : value_(value) {}

std::optional<BigRational> BigRational::Bounded(mpq_class value) {
  if (Bits(value.get_num()) > kMaxBits || Bits(value.get_den()) > kMaxBits) return std::nullopt;
  BigRational out;
  out.value_ = std::move(value);
  return out;
}

std::optional<BigRational> BigRational::FromDecimal(std::string_view digits, int exponent) {
  // 600 digits and exponents are within kMaxBits (3.33 bits a digit); what is longer is refused
  // before any work.
  if (digits.size() > 600 || std::abs(exponent) > 600) return std::nullopt;
  std::string whole;
  bool point = false;
  for (char c : digits) {
    if (c == '.' && !point) {
      point = true;
      continue;
    }
    if (c < '0' || c > '9') return std::nullopt;
    if (point) --exponent;
    whole += c;
  }
  if (whole.empty()) return std::nullopt;
  const auto scale = BigRational(10).Power(exponent);
  const auto value = Bounded(mpq_class(mpz_class(whole, 10)));
  return scale && value ? value->Times(*scale) : std::nullopt;
}

std::optional<BigRational> BigRational::Plus(const BigRational& other) const {
  return Bounded(value_ + other.value_);
}
std::optional<BigRational> BigRational::Minus(const BigRational& other) const {
  return Bounded(value_ - other.value_);
}
std::optional<BigRational> BigRational::Times(const BigRational& other) const {
  return Bounded(value_ * other.value_);
}
std::optional<BigRational> BigRational::Over(const BigRational& other) const {
  return other.zero() ? std::nullopt : Bounded(value_ / other.value_);
}

std::optional<BigRational> BigRational::Power(int64_t exponent) const {
  if (exponent < 0) {
    const auto inverse = BigRational(1).Over(*this);
    if (!inverse || exponent == INT64_MIN) return std::nullopt;
    return inverse->Power(-exponent);
  }
  if (zero()) return BigRational(exponent == 0 ? 1 : 0);
  const size_t bits = std::max(Bits(value_.get_num()), Bits(value_.get_den()));
  if (bits > 1 && static_cast<uint64_t>(exponent) > 2 * kMaxBits / (bits - 1)) return std::nullopt;
  mpq_class out;
  mpz_pow_ui(out.get_num_mpz_t(), value_.get_num_mpz_t(), static_cast<unsigned long>(exponent));
  mpz_pow_ui(out.get_den_mpz_t(), value_.get_den_mpz_t(), static_cast<unsigned long>(exponent));
  return Bounded(std::move(out));
}

std::optional<BigRational> BigRational::Root(int64_t n) const {
  if (n < 1 || n > 1024 || (negative() && n % 2 == 0)) return std::nullopt;
  mpq_class out;
  const auto degree = static_cast<unsigned long>(n);
  const bool above = mpz_root(out.get_num_mpz_t(), value_.get_num_mpz_t(), degree) != 0;
  const bool below = mpz_root(out.get_den_mpz_t(), value_.get_den_mpz_t(), degree) != 0;
  return above && below ? Bounded(std::move(out)) : std::nullopt;
}

BigRational BigRational::Negated() const {
  BigRational out;
  out.value_ = -value_;
  return out;
}

BigRational BigRational::Absolute() const {
  BigRational out;
  out.value_ = abs(value_);
  return out;
}

BigRational BigRational::Numerator() const {
  BigRational out;
  out.value_ = value_.get_num();
  return out;
}

BigRational BigRational::Denominator() const {
  BigRational out;
  out.value_ = value_.get_den();
  return out;
}

std::strong_ordering BigRational::Compare(const BigRational& other) const {
  return cmp(value_, other.value_) <=> 0;
}

std::optional<int64_t> BigRational::ToInt64() const {
  if (!integer() || Bits(value_.get_num()) > 62) return std::nullopt;
  return value_.get_num().get_si();
}

long double BigRational::ToLongDouble() const {
  int up = 0, down = 0;
  const long double above = HighBits(value_.get_num(), &up),
                    below = HighBits(value_.get_den(), &down);
  const long double value = std::ldexp(above / below, up - down);
  return negative() ? -value : value;
}

std::optional<uint64_t> BigRational::Modulo(uint64_t prime) const {
  const uint64_t below = mpz_fdiv_ui(value_.get_den_mpz_t(), prime);
  if (below == 0) return std::nullopt;
  return MultiplyModulo(mpz_fdiv_ui(value_.get_num_mpz_t(), prime),
                        PowerModulo(below, prime - 2, prime), prime);
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
