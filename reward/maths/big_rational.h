// Exact fractions of whole numbers, of bounded size.
//
// Purpose: maths answers are compared without rounding. Values are always in lowest terms, the
// denominator positive. Thread safety: a value; const calls are safe together. Ownership: owns its
// digits, which are GMP's. Errors: nullopt when a result would need more than kMaxBits bits above
// or below the line, or would divide by zero: hostile text costs a bounded time, and what is too
// large is never rounded.
#pragma once

#include <gmpxx.h>

#include <compare>
#include <cstdint>
#include <optional>
#include <string_view>

namespace plumb::reward {

class BigRational {
 public:
  static constexpr size_t kMaxBits = 2048;

  BigRational() = default;  // 0
  explicit BigRational(int64_t value);
  // Digits with at most one '.', e.g. "12", "0.50", ".5", "5.", times ten to `exponent`.
  static std::optional<BigRational> FromDecimal(std::string_view digits, int exponent = 0);

  std::optional<BigRational> Plus(const BigRational& other) const;
  std::optional<BigRational> Minus(const BigRational& other) const;
  std::optional<BigRational> Times(const BigRational& other) const;
  std::optional<BigRational> Over(const BigRational& other) const;
  // 0 to the power 0 is 1; 0 to a negative power is none.
  std::optional<BigRational> Power(int64_t exponent) const;
  // The exact n-th root, n >= 1, if it is rational; of a negative number only for odd n (the real
  // root).
  std::optional<BigRational> Root(int64_t n) const;
  BigRational Negated() const;
  BigRational Absolute() const;

  std::strong_ordering Compare(const BigRational& other) const;
  bool operator==(const BigRational& other) const { return value_ == other.value_; }
  bool zero() const { return value_ == 0; }
  bool negative() const { return value_ < 0; }
  bool integer() const { return value_.get_den() == 1; }
  std::optional<int64_t> ToInt64() const;
  // Numerator or denominator alone, both whole.
  BigRational Numerator() const;
  BigRational Denominator() const;
  // Within 4 units in the last place.
  long double ToLongDouble() const;
  // The value in the field of `prime` elements (prime < 2^62); none if the denominator is 0 there.
  std::optional<uint64_t> Modulo(uint64_t prime) const;

 private:
  // REQUIRES: in lowest terms.
  static std::optional<BigRational> Bounded(mpq_class value);

  mpq_class value_;
};

// Arithmetic in the field of `prime` elements, prime < 2^62.
uint64_t MultiplyModulo(uint64_t a, uint64_t b, uint64_t prime);
uint64_t PowerModulo(uint64_t base, uint64_t exponent, uint64_t prime);

}  // namespace plumb::reward
