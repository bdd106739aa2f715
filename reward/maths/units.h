// Units behind a number, as dimensions and an exact factor.
//
// Purpose: "500 cm" is "5 m", "$0.50" is "50 cents", "90 km/h" is "25 m/s"; "5 m" is not "5 cm" and
// not "5 s". Reads the dialect of latex_text.h: names and symbols in \text or plain, powers (cm^2,
// square metres, cubed), quotients (m/s, miles per hour, \frac{m}{s^2}), products, currency signs,
// \degree with or without C or F, %, and words that multiply (dozen, thousand, million, billion,
// trillion), \Omega for ohm with k or M before it, \mu for a millionth. Months are not seconds: a
// year is twelve months, a day 24 hours.
// Thread safety: pure; the table is constant.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "reward/maths/big_rational.h"

namespace plumb::reward {

struct Unit {
  enum Base : uint8_t {
    kLength,
    kMass,
    kTime,
    kMonth,
    kAngle,
    kKelvin,
    kAmpere,
    kMole,
    kBit,
    kDollar,
    kEuro,
    kPound,
    kYen,
    kRupee,
    kUnit,
    kBases
  };
  std::array<int8_t, kBases> powers{};  // of the base units: metre, gram, second, month, degree,
                                        // ...; kUnit: "square units"
  BigRational factor{1};                // value x factor + offset is in base units
  BigRational offset;                   // degrees Celsius and Fahrenheit alone
  bool percent = false;
  bool radian = false;      // angle: the factor still lacks 180 / pi
  bool scale_only = false;  // only words that multiply: "3 million" is the number 3000000
  bool weak = false;        // one letter or a \frac of letters: could be variables

  bool operator==(const Unit& other) const = default;
};

// All of `plain` as one unit; none if a word is unknown or it is empty.
std::optional<Unit> ReadUnit(std::string_view plain);
// The currency sign or code at the start, e.g. "\usd", "USD", "Rs."; `used` bytes.
std::optional<Unit> ReadCurrencySign(std::string_view plain, size_t* used);

}  // namespace plumb::reward
