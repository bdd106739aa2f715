#include "reward/maths/units.h"

#include <algorithm>
#include <string>
#include <vector>

#include "common/base/text.h"
#include "reward/maths/latex_text.h"

namespace plumb::reward {
namespace {

struct Power {
  Unit::Base base;
  int8_t exponent;
};
struct Entry {
  // separated by spaces; a name of three letters or more is compared without case, and takes an s
  const char* names;
  const char* above;  // factor = above / below
  const char* below;
  Power powers[4] = {{Unit::kBases, 0}, {Unit::kBases, 0}, {Unit::kBases, 0}, {Unit::kBases, 0}};
};
constexpr Entry kEntries[] = {
    {"m meter metre", "1", "1", {{Unit::kLength, 1}}},
    {"km kilometer kilometre", "1000", "1", {{Unit::kLength, 1}}},
    {"dm decimeter decimetre", "0.1", "1", {{Unit::kLength, 1}}},
    {"cm centimeter centimetre", "0.01", "1", {{Unit::kLength, 1}}},
    {"mm millimeter millimetre", "0.001", "1", {{Unit::kLength, 1}}},
    {"micrometer micrometre micron", "0.000001", "1", {{Unit::kLength, 1}}},
    {"nm nanometer nanometre", "0.000000001", "1", {{Unit::kLength, 1}}},
    {"in inch inche inches", "0.0254", "1", {{Unit::kLength, 1}}},
    {"ft foot feet", "0.3048", "1", {{Unit::kLength, 1}}},
    {"yd yard", "0.9144", "1", {{Unit::kLength, 1}}},
    {"mi mile", "1609.344", "1", {{Unit::kLength, 1}}},
    {"g gram gramme", "1", "1", {{Unit::kMass, 1}}},
    {"kg kilogram kilogramme kilo", "1000", "1", {{Unit::kMass, 1}}},
    {"mg milligram", "0.001", "1", {{Unit::kMass, 1}}},
    {"tonne", "1000000", "1", {{Unit::kMass, 1}}},
    {"lb lbs pound", "453.59237", "1", {{Unit::kMass, 1}}},
    {"oz ounce", "28.349523125", "1", {{Unit::kMass, 1}}},
    {"s sec second", "1", "1", {{Unit::kTime, 1}}},
    {"ms millisecond", "0.001", "1", {{Unit::kTime, 1}}},
    {"min minute", "60", "1", {{Unit::kTime, 1}}},
    {"h hr hour", "3600", "1", {{Unit::kTime, 1}}},
    {"day", "86400", "1", {{Unit::kTime, 1}}},
    {"week", "604800", "1", {{Unit::kTime, 1}}},
    {"month", "1", "1", {{Unit::kMonth, 1}}},
    {"yr year", "12", "1", {{Unit::kMonth, 1}}},
    {"decade", "120", "1", {{Unit::kMonth, 1}}},
    {"century centuries", "1200", "1", {{Unit::kMonth, 1}}},
    {"deg degree", "1", "1", {{Unit::kAngle, 1}}},
    {"K kelvin", "1", "1", {{Unit::kKelvin, 1}}},
    {"A amp ampere", "1", "1", {{Unit::kAmpere, 1}}},
    {"mol mole", "1", "1", {{Unit::kMole, 1}}},
    {"bit", "1", "1", {{Unit::kBit, 1}}},
    {"B byte", "8", "1", {{Unit::kBit, 1}}},
    {"KB kB kilobyte", "8000", "1", {{Unit::kBit, 1}}},
    {"MB megabyte", "8000000", "1", {{Unit::kBit, 1}}},
    {"GB gigabyte", "8000000000", "1", {{Unit::kBit, 1}}},
    {"L l liter litre", "0.001", "1", {{Unit::kLength, 3}}},
    {"mL ml milliliter millilitre", "0.000001", "1", {{Unit::kLength, 3}}},
    {"gal gallon", "0.003785411784", "1", {{Unit::kLength, 3}}},
    {"qt quart", "0.000946352946", "1", {{Unit::kLength, 3}}},
    {"pint", "0.000473176473", "1", {{Unit::kLength, 3}}},
    {"cup", "0.0002365882365", "1", {{Unit::kLength, 3}}},
    {"acre", "4046.8564224", "1", {{Unit::kLength, 2}}},
    {"ha hectare", "10000", "1", {{Unit::kLength, 2}}},
    {"mph", "1609.344", "3600", {{Unit::kLength, 1}, {Unit::kTime, -1}}},
    {"kph kmh", "1000", "3600", {{Unit::kLength, 1}, {Unit::kTime, -1}}},
    {"Hz hertz", "1", "1", {{Unit::kTime, -1}}},
    {"N newton", "1000", "1", {{Unit::kMass, 1}, {Unit::kLength, 1}, {Unit::kTime, -2}}},
    {"J joule", "1000", "1", {{Unit::kMass, 1}, {Unit::kLength, 2}, {Unit::kTime, -2}}},
    {"kJ kilojoule", "1000000", "1", {{Unit::kMass, 1}, {Unit::kLength, 2}, {Unit::kTime, -2}}},
    {"W watt", "1000", "1", {{Unit::kMass, 1}, {Unit::kLength, 2}, {Unit::kTime, -3}}},
    {"kW kilowatt", "1000000", "1", {{Unit::kMass, 1}, {Unit::kLength, 2}, {Unit::kTime, -3}}},
    {"Pa pascal", "1000", "1", {{Unit::kMass, 1}, {Unit::kLength, -1}, {Unit::kTime, -2}}},
    {"kPa kilopascal", "1000000", "1", {{Unit::kMass, 1}, {Unit::kLength, -1}, {Unit::kTime, -2}}},
    {"kN kilonewton", "1000000", "1", {{Unit::kMass, 1}, {Unit::kLength, 1}, {Unit::kTime, -2}}},
    {"V volt",
     "1000",
     "1",
     {{Unit::kMass, 1}, {Unit::kLength, 2}, {Unit::kTime, -3}, {Unit::kAmpere, -1}}},
    {"mA milliampere", "0.001", "1", {{Unit::kAmpere, 1}}},
    {"ohm",
     "1000",
     "1",
     {{Unit::kMass, 1}, {Unit::kLength, 2}, {Unit::kTime, -3}, {Unit::kAmpere, -2}}},
    {"unit", "1", "1", {{Unit::kUnit, 1}}},
    {"usd dollar buck USD", "1", "1", {{Unit::kDollar, 1}}},
    {"cent", "0.01", "1", {{Unit::kDollar, 1}}},
    {"eur euro EUR", "1", "1", {{Unit::kEuro, 1}}},
    {"gbp GBP quid", "1", "1", {{Unit::kPound, 1}}},
    {"jpy JPY yen", "1", "1", {{Unit::kYen, 1}}},
    {"inr INR rupee Rs", "1", "1", {{Unit::kRupee, 1}}},
};
struct ScaleWord {
  const char* name;
  const char* factor;
};
constexpr ScaleWord kScales[] = {{"dozen", "12"},
                                 {"thousand", "1000"},
                                 {"million", "1000000"},
                                 {"billion", "1000000000"},
                                 {"trillion", "1000000000000"}};

const Entry* Find(std::string_view word) {
  const std::string lower = LowerAscii(word);
  for (const Entry& entry : kEntries) {
    std::string_view names = entry.names;
    while (!names.empty()) {
      const size_t space = std::min(names.find(' '), names.size());
      const std::string_view name = names.substr(0, space);
      names.remove_prefix(std::min(space + 1, names.size()));
      if (word == name) return &entry;
      if (name.size() >= 2 &&
          (lower == name || (name.size() >= 3 && lower == std::string(name) + "s")))
        return &entry;
      if (name.size() == 2 && (name == "hr" || name == "yr" || name == "yd") &&
          lower == std::string(name) + "s")
        return &entry;
    }
  }
  return nullptr;
}

BigRational Decimal(const char* text) {
  return BigRational::FromDecimal(text).value_or(BigRational(0));
}

Unit Celsius(bool fahrenheit) {
  Unit unit;
  unit.powers[Unit::kKelvin] = 1;
  const BigRational ninth = fahrenheit ? *BigRational(5).Over(BigRational(9)) : BigRational(1);
  unit.factor = ninth;
  unit.offset = *ninth.Times(Decimal(fahrenheit ? "459.67" : "273.15"));
  return unit;
}

// value x table entry to the power `exponent`; false where a factor grows too large.
bool Multiply(Unit* unit, const Entry& entry, int exponent) {
  const auto ratio = Decimal(entry.above).Over(Decimal(entry.below));
  const auto power = ratio ? ratio->Power(exponent) : std::nullopt;
  const auto factor = power ? unit->factor.Times(*power) : std::nullopt;
  if (!factor) return false;
  unit->factor = *factor;
  for (const Power& p : entry.powers) {
    if (p.base == Unit::kBases) continue;
    unit->powers[p.base] = static_cast<int8_t>(unit->powers[p.base] + p.exponent * exponent);
  }
  return true;
}

// Words, '^n', '/', '*' and \commands of a unit text; none where something else stands.
struct Token {
  enum class Kind : uint8_t { kWord, kCommand, kPower, kOver, kTimes, kPercent } kind = Kind::kWord;
  std::string text = {};
  int exponent = 1;
};
// `fraction`: s is a part of one already.
std::optional<std::vector<Token>> Tokens(std::string_view s, bool fraction = false) {
  std::vector<Token> out;
  int boxes = 0;
  for (size_t i = 0; i < s.size() && out.size() < 16;) {
    const char c = s[i];
    if (s.substr(i).starts_with("\\frac{")) {  // each factor below the line divides
      const auto above = BracedText(s, i + 5);
      const auto below = above ? BracedText(s, i + 7 + above->size()) : std::nullopt;
      const auto up = above && !fraction ? Tokens(*above, true) : std::nullopt;
      const auto down = below && !fraction ? Tokens(*below, true) : std::nullopt;
      if (!up || !down) return std::nullopt;
      if (*above != "1") out.insert(out.end(), up->begin(), up->end());
      for (const Token& token : *down) {
        if (token.kind == Token::Kind::kOver || token.kind == Token::Kind::kPercent)
          return std::nullopt;
        if (token.kind == Token::Kind::kWord || token.kind == Token::Kind::kCommand)
          out.push_back({Token::Kind::kOver});
        out.push_back(token);
      }
      i += 9 + above->size() + below->size();
    } else if (s.substr(i).starts_with("\\text{")) {
      ++boxes;
      i += 6;
    } else if (c == '}' && boxes > 0) {
      --boxes;
      ++i;
    } else if (c == ' ' || c == '.' || c == '-') {
      ++i;
    } else if (c == '%') {
      out.push_back({Token::Kind::kPercent});
      ++i;
    } else if (c == '/') {
      out.push_back({Token::Kind::kOver});
      ++i;
    } else if (c == '1' && s.size() == 1 && fraction) {
      ++i;
    } else if (c == '*') {
      out.push_back({Token::Kind::kTimes});
      ++i;
    } else if (c == '^') {
      ++i;
      const bool braced = i < s.size() && s[i] == '{';
      if (braced) ++i;
      const bool negative = i < s.size() && s[i] == '-';
      if (negative) ++i;
      if (i >= s.size() || !IsDigit(s[i])) return std::nullopt;
      const int value = s[i++] - '0';
      if (i < s.size() && IsDigit(s[i])) return std::nullopt;
      if (braced && (i >= s.size() || s[i++] != '}')) return std::nullopt;
      out.push_back({Token::Kind::kPower, {}, negative ? -value : value});
    } else if (c == '\\' || IsLetter(c)) {
      size_t end = i + 1;
      while (end < s.size() && IsLetter(s[end])) ++end;
      const bool command = c == '\\';
      out.push_back({command ? Token::Kind::kCommand : Token::Kind::kWord,
                     std::string(s.substr(i + command, end - i - command))});
      i = end;
    } else {
      return std::nullopt;
    }
  }
  if (out.size() >= 16) return std::nullopt;
  return out;
}

}  // namespace

std::optional<Unit> ReadUnit(std::string_view plain) {
  const auto tokens = Tokens(plain);
  if (!tokens || tokens->empty()) return std::nullopt;
  Unit unit;
  bool over = false, any = false, scale = false;
  int prefix = 1;
  size_t words = 0;
  const Entry* last = nullptr;
  for (size_t i = 0; i < tokens->size(); ++i) {
    const Token& token = (*tokens)[i];
    using Kind = Token::Kind;
    int exponent = prefix * (over ? -1 : 1);
    switch (token.kind) {
      case Kind::kPercent:
        if (any || tokens->size() != 1) return std::nullopt;
        unit.percent = true;
        return unit;
      case Kind::kOver:
        if (over) return std::nullopt;
        over = true;
        continue;
      case Kind::kTimes: continue;
      case Kind::kPower: return std::nullopt;  // a power follows a word, where it is read
      case Kind::kCommand:
        if (token.text == "degree") {
          const std::string next = i + 1 < tokens->size() ? LowerAscii((*tokens)[i + 1].text) : "";
          if ((next == "c" || next == "celsius" || next == "f" || next == "fahrenheit") && !any) {
            if (i + 2 != tokens->size()) return std::nullopt;
            return Celsius(next[0] == 'f');
          }
          last = Find("degree");
        } else if (token.text == "mu") {  // micro
          if (i + 1 == tokens->size() || (*tokens)[i + 1].kind != Kind::kWord || over)
            return std::nullopt;
          unit.factor = *unit.factor.Times(Decimal("0.000001"));
          continue;
        } else if (token.text == "Omega") {
          last = Find("ohm");
        } else if (token.text == "cent" || token.text == "usd" || token.text == "eur" ||
                   token.text == "gbp" || token.text == "jpy" || token.text == "inr") {
          last = Find(token.text);
        } else {
          return std::nullopt;
        }
        break;
      case Kind::kWord: {
        const std::string lower = LowerAscii(token.text);
        if (lower == "per") {
          over = true;
          continue;
        }
        if (lower == "square" || lower == "sq" || lower == "cubic" || lower == "cu") {
          prefix = lower[0] == 's' ? 2 : 3;
          continue;
        }
        if (lower == "percent") {
          if (any || tokens->size() != 1) return std::nullopt;
          unit.percent = true;
          return unit;
        }
        if (lower == "degc" || lower == "degf" || lower == "celsius" || lower == "fahrenheit") {
          if (any) return std::nullopt;
          return Celsius(lower == "degf" || lower == "fahrenheit");
        }
        if ((lower == "degrees" || lower == "degree") && i + 2 == tokens->size()) {
          const std::string next = LowerAscii((*tokens)[i + 1].text);
          if (next == "c" || next == "celsius" || next == "f" || next == "fahrenheit")
            return Celsius(next[0] == 'f');
        }
        if (lower == "rad" || lower == "radian" || lower == "radians") {
          if (tokens->size() != 1) return std::nullopt;
          unit.powers[Unit::kAngle] = 1;
          unit.radian = true;
          return unit;
        }
        const auto* word =
            std::find_if(std::begin(kScales), std::end(kScales), [&](const ScaleWord& w) {
              return lower == w.name || lower == std::string(w.name) + "s";
            });
        if (word != std::end(kScales)) {
          if (words > 0) return std::nullopt;
          unit.factor = *unit.factor.Times(Decimal(word->factor));
          scale = any = true;
          continue;
        }
        if ((token.text == "k" || token.text == "M") && i + 1 < tokens->size() &&
            (*tokens)[i + 1].text == "Omega") {
          if (over) return std::nullopt;
          unit.factor = *unit.factor.Times(Decimal(token.text == "k" ? "1000" : "1000000"));
          continue;
        }
        last = Find(token.text);
        if (last == nullptr) return std::nullopt;
        break;
      }
    }
    if (i + 1 < tokens->size()) {
      const Token& next = (*tokens)[i + 1];
      const std::string lower = LowerAscii(next.text);
      if (next.kind == Kind::kPower) {
        exponent *= next.exponent;
        ++i;
      } else if (lower == "squared" || lower == "cubed") {
        exponent *= lower[0] == 's' ? 2 : 3;
        ++i;
      }
    }
    if (last == nullptr || !Multiply(&unit, *last, exponent)) return std::nullopt;
    prefix = 1;
    over = false;
    any = true;
    ++words;
  }
  if (!any || over || prefix != 1) return std::nullopt;
  unit.scale_only = scale && words == 0;
  const bool letter = tokens->size() == 1 && (*tokens)[0].text.size() == 1;
  unit.weak = (letter || plain.find("\\frac") != std::string_view::npos) &&
              plain.find("\\text") == std::string_view::npos;
  return unit;
}

std::optional<Unit> ReadCurrencySign(std::string_view plain, size_t* used) {
  static constexpr std::string_view kSigns[] = {"\\usd",   "\\eur", "\\gbp", "\\jpy", "\\inr",
                                                "USD",     "EUR",   "GBP",   "JPY",   "INR",
                                                "US\\usd", "Rs.",   "Rs"};
  for (std::string_view sign : kSigns) {
    if (!plain.starts_with(sign)) continue;
    if (plain.size() > sign.size() && IsLetter(plain[sign.size()])) continue;
    *used = sign.size();
    const size_t name = sign.find('\\');
    std::string_view word = sign.substr(name == std::string_view::npos ? 0 : name + 1);
    if (word == "Rs.") word = "Rs";
    return ReadUnit(word);
  }
  return std::nullopt;
}

}  // namespace plumb::reward
