"""Writes policy_model/files/nfc_tables.h from Python's Unicode data: python3 tools/make_nfc_tables.py"""
import os
import unicodedata

CODES = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and not 0xAC00 <= c <= 0xD7A3]


def decomposition(code):
    text = unicodedata.decomposition(chr(code))
    return [int(x, 16) for x in text.split()] if text and not text.startswith("<") else []


def rows(items, per_line):
    lines = []
    for i in range(0, len(items), per_line):
        lines.append("    " + " ".join("{%s}," % ",".join(hex(x) if k < 3 else str(x) for k, x in enumerate(t))
                                       for t in items[i:i + per_line]))
    return "\n".join(lines)


def main():
    composed, split_only = [], []
    for c in CODES:
        parts = decomposition(c)
        if parts:
            entry = (c, parts[0], parts[1] if len(parts) > 1 else 0)
            (composed if unicodedata.normalize("NFC", chr(c)) == chr(c) else split_only).append(entry)
    ranges = []
    for c in CODES:
        k = unicodedata.combining(chr(c))
        if k and ranges and ranges[-1][2] == k and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        elif k:
            ranges.append([c, c, k])
    path = os.path.join(os.path.dirname(__file__), "..", "policy_model", "files", "nfc_tables.h")
    with open(path, "w", encoding="ascii") as out:
        out.write("""// Canonical decompositions and combining classes of Unicode %s, for nfc.cc.
// Written by tools/make_nfc_tables.py; do not edit. Hangul syllables are computed, not listed.
#pragma once

#include <cstdint>

namespace plumb::policy_model {

struct Decomposition {
  char32_t code, first, second;  // second: 0 when the code has one equivalent
};
struct CombiningRange {
  char32_t first, last;
  uint32_t combining_class;
};

// Sorted by code. These also compose again.
inline constexpr Decomposition kComposed[] = {
%s
};
// Sorted by code. These only decompose.
inline constexpr Decomposition kSplitOnly[] = {
%s
};
// Sorted; characters outside have class 0.
inline constexpr CombiningRange kCombining[] = {
%s
};

}  // namespace plumb::policy_model
""" % (unicodedata.unidata_version, rows(composed, 4), rows(split_only, 5), rows(ranges, 4)))


if __name__ == "__main__":
    main()
