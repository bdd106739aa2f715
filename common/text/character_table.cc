#include "common/text/character_table.h"

#include <utf8proc.h>

#include <array>
#include <mutex>

namespace plumb {
namespace {

struct Range {
  char32_t first, last;
  uint8_t bits;
};
// Assigned since Unicode 15. A newer utf8proc finds them itself and is asked first.
constexpr Range kNewer[] = {
    {0x897, 0x897, kMarkCharacter},
    {0x1B4E, 0x1B4F, kPunctuation},
    {0x1B7F, 0x1B7F, kPunctuation},
    {0x1C89, 0x1C89, kUpperLetter},
    {0x1C8A, 0x1C8A, kLowerLetter},
    {0x2427, 0x2429, kSymbol},
    {0x2FFC, 0x2FFF, kSymbol},
    {0x31E4, 0x31E5, kSymbol},
    {0x31EF, 0x31EF, kSymbol},
    {0xA7CB, 0xA7CC, kUpperLetter},
    {0xA7CD, 0xA7CD, kLowerLetter},
    {0xA7DA, 0xA7DA, kUpperLetter},
    {0xA7DB, 0xA7DB, kLowerLetter},
    {0xA7DC, 0xA7DC, kUpperLetter},
    {0x105C0, 0x105F3, kOtherLetter},
    {0x10D40, 0x10D49, kNumberCharacter},
    {0x10D4A, 0x10D4F, kOtherLetter},
    {0x10D50, 0x10D65, kUpperLetter},
    {0x10D69, 0x10D6D, kMarkCharacter},
    {0x10D6E, 0x10D6E, kPunctuation},
    {0x10D6F, 0x10D6F, kOtherLetter},
    {0x10D70, 0x10D85, kLowerLetter},
    {0x10D8E, 0x10D8F, kSymbol},
    {0x10EC2, 0x10EC4, kOtherLetter},
    {0x10EFC, 0x10EFC, kMarkCharacter},
    {0x11380, 0x11389, kOtherLetter},
    {0x1138B, 0x1138B, kOtherLetter},
    {0x1138E, 0x1138E, kOtherLetter},
    {0x11390, 0x113B5, kOtherLetter},
    {0x113B7, 0x113B7, kOtherLetter},
    {0x113B8, 0x113C0, kMarkCharacter},
    {0x113C2, 0x113C2, kMarkCharacter},
    {0x113C5, 0x113C5, kMarkCharacter},
    {0x113C7, 0x113CA, kMarkCharacter},
    {0x113CC, 0x113D0, kMarkCharacter},
    {0x113D1, 0x113D1, kOtherLetter},
    {0x113D2, 0x113D2, kMarkCharacter},
    {0x113D3, 0x113D3, kOtherLetter},
    {0x113D4, 0x113D5, kPunctuation},
    {0x113D7, 0x113D8, kPunctuation},
    {0x113E1, 0x113E2, kMarkCharacter},
    {0x116D0, 0x116E3, kNumberCharacter},
    {0x11BC0, 0x11BE0, kOtherLetter},
    {0x11BE1, 0x11BE1, kPunctuation},
    {0x11BF0, 0x11BF9, kNumberCharacter},
    {0x11F5A, 0x11F5A, kMarkCharacter},
    {0x13460, 0x143FA, kOtherLetter},
    {0x16100, 0x1611D, kOtherLetter},
    {0x1611E, 0x1612F, kMarkCharacter},
    {0x16130, 0x16139, kNumberCharacter},
    {0x16D40, 0x16D6C, kOtherLetter},
    {0x16D6D, 0x16D6F, kPunctuation},
    {0x16D70, 0x16D79, kNumberCharacter},
    {0x18CFF, 0x18CFF, kOtherLetter},
    {0x1CC00, 0x1CCEF, kSymbol},
    {0x1CCF0, 0x1CCF9, kNumberCharacter},
    {0x1CD00, 0x1CEB3, kSymbol},
    {0x1E5D0, 0x1E5ED, kOtherLetter},
    {0x1E5EE, 0x1E5EF, kMarkCharacter},
    {0x1E5F0, 0x1E5F0, kOtherLetter},
    {0x1E5F1, 0x1E5FA, kNumberCharacter},
    {0x1E5FF, 0x1E5FF, kPunctuation},
    {0x1F8B2, 0x1F8BB, kSymbol},
    {0x1F8C0, 0x1F8C1, kSymbol},
    {0x1FA89, 0x1FA89, kSymbol},
    {0x1FA8F, 0x1FA8F, kSymbol},
    {0x1FABE, 0x1FABE, kSymbol},
    {0x1FAC6, 0x1FAC6, kSymbol},
    {0x1FADC, 0x1FADC, kSymbol},
    {0x1FADF, 0x1FADF, kSymbol},
    {0x1FAE9, 0x1FAE9, kSymbol},
    {0x1FBCB, 0x1FBEF, kSymbol},
    {0x2EBF0, 0x2EE5D, kOtherLetter},
};

uint8_t BitsOfCategory(utf8proc_category_t category, char32_t code) {
  switch (category) {
    case UTF8PROC_CATEGORY_LL: return kLowerLetter;
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT: return kUpperLetter;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return kOtherLetter;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return kMarkCharacter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return kNumberCharacter;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return kSpaceCharacter;
    case UTF8PROC_CATEGORY_CC:
      return (code >= '\t' && code <= '\r') || code == 0x85 ? kSpaceCharacter : 0;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: return kPunctuation;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO: return kSymbol;
    default: return 0;
  }
}

std::array<uint8_t, kCodePoints> table;

void Fill(char32_t first, char32_t end) {
  for (char32_t code = first; code < end; ++code)
    table[code] = BitsOfCategory(utf8proc_category(static_cast<utf8proc_int32_t>(code)), code);
}

}  // namespace

const uint8_t* CharacterTable() {
  static std::once_flag once;
  std::call_once(once, [] {
    // What lies between is unassigned or of private use in every Unicode so far.
    Fill(0, 0x40000);
    Fill(0xE0000, 0xE0200);
    for (const Range& r : kNewer) {
      for (char32_t code = r.first; code <= r.last; ++code) {
        if (table[code] == 0) table[code] = r.bits;
      }
    }
  });
  return table.data();
}

}  // namespace plumb
