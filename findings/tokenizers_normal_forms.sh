#!/usr/bin/env bash
# The normal forms of tokenizers 0.23.3 know no character that Unicode added after version 9 (2016), as far as those have a form.
#
# NFKC leaves U+32FF (the square of the era Reiwa, Unicode 12.1) as it is, where unicodedata of newer versions and utf8proc write two
# characters; NFD and NFC do not put marks of later versions into their order (U+08CF behind an accent), so two spellings of one text
# keep different ids. A corpus that was put into NFKC before, and a tokenizer that does it itself, then disagree: rows prepared by
# one are other tokens than rows prepared by the other. No other normal form of a single code point differs. Seen 2026-11-29, PyPI
# tokenizers 0.23.3 beside unicodedata2 15.1.0 (Unicode 15.1):
#   code points whose form differs   NFC 0  NFD 1  NFKC 134  NFKD 135
#   U+32FF NFKC                      tokenizers U+32FF   unicodedata U+4EE4 U+548C
#   a U+0301 U+08CF NFD              tokenizers U+0061 U+0301 U+08CF   unicodedata U+0061 U+08CF U+0301
# Fails when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3 unicodedata2==15.1.0
"$work/venv/bin/python" - <<'PY'
import unicodedata2 as theirs  # of one version, whatever the Python

from tokenizers import normalizers

FORMS = {name: getattr(normalizers, name)() for name in ("NFC", "NFD", "NFKC", "NFKD")}
differ = {name: [] for name in FORMS}
for point in range(0x110000):
    if 0xD800 <= point < 0xE000:
        continue
    for name, form in FORMS.items():
        if form.normalize_str(chr(point)) != theirs.normalize(name, chr(point)):
            differ[name].append(point)
counts = {name: len(points) for name, points in differ.items()}
print("code points whose form differs  ", counts)
assert counts == {"NFC": 0, "NFD": 1, "NFKC": 134, "NFKD": 135}, "134 and 135 were seen before"


def show(name, text):
    def points(t):
        return " ".join(f"U+{ord(c):04X}" for c in t)

    ours, reference = FORMS[name].normalize_str(text), theirs.normalize(name, text)
    print(f"{points(text)} {name}: tokenizers {points(ours)}   unicodedata {points(reference)}")
    return ours, reference


ours, reference = show("NFKC", "\u32ff")
assert ours == "\u32ff" and reference == "\u4ee4\u548c"
ours, reference = show("NFD", "a\u0301\u08cf")
assert ours == "a\u0301\u08cf" and reference == "a\u08cf\u0301"
PY
