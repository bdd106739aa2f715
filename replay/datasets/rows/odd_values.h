// Values that stand in rows of JSON lines although JSON has no such thing, and what is made of
// them.
//
// Purpose: one NaN in a column that nobody needs should cost no row. What Python, pandas and texts
// cut by bytes leave behind:
//   NaN, Infinity, -Infinity as bare words       null
//   numbers beyond 64 bits or beyond a double    the text of their digits: nothing is lost
//   half of a surrogate pair (\ud83d alone)      U+FFFD
//   bytes that are no UTF-8, within a text       U+FFFD each
//   Binary as a bare word (what row sources write for a column of bytes that are no text)   null
// replay/datasets/rows/row_parser.h reads what comes out, refuses the row where it needs such a
// column (a long number may be an answer), and counts the others.
// Thread safety: pure functions. Nothing is checked that a JSON parser checks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace plumb::replay {

enum class OddKind : uint8_t { kNotANumber, kLongNumber, kLoneSurrogate, kBadUtf8, kBinary };

struct OddValue {
  std::string column;  // of the row, however deep the value lies in it
  OddKind kind = OddKind::kNotANumber;
  std::string value;  // as it stands there, its beginning
};

// The odd values of a row, in their order, and in `mended` the row without them. Empty: there are
// none, `mended` is void.
std::vector<OddValue> MendRow(std::string_view row, std::string& mended);

// For people: "column 'score' holds NaN", and what to do where the column is needed.
std::string Describe(const OddValue& odd);
const char* Advice(OddKind kind);
// What was done, for a ledger: "odd values left out (null)", ...
const char* WhatWasDone(OddKind kind);

}  // namespace plumb::replay
