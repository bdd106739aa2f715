#include "policy_model/files/nfc.h"

#include <algorithm>
#include <iterator>
#include <unordered_map>
#include <vector>

#include "policy_model/files/nfc_tables.h"
#include "policy_model/files/unicode.h"

namespace plumb::policy_model {
namespace {

constexpr char32_t kHangul = 0xAC00, kLead = 0x1100, kVowel = 0x1161, kTail = 0x11A7;
constexpr char32_t kLeads = 19, kVowels = 21, kTails = 28, kSyllables = kLeads * kVowels * kTails;

template <size_t N>
const Decomposition* Lookup(const Decomposition (&table)[N], char32_t code) {
  const auto* it = std::lower_bound(std::begin(table), std::end(table), code,
                                    [](const Decomposition& d, char32_t c) { return d.code < c; });
  return it != std::end(table) && it->code == code ? it : nullptr;
}

uint32_t CombiningClass(char32_t code) {
  if (code < 0x300) return 0;
  const auto* it = std::upper_bound(std::begin(kCombining), std::end(kCombining), code,
                                    [](char32_t c, const CombiningRange& r) { return c < r.first; });
  if (it == std::begin(kCombining)) return 0;
  --it;
  return code <= it->last ? it->combining_class : 0;
}

void Decompose(char32_t code, std::vector<char32_t>& out) {
  if (code >= kHangul && code < kHangul + kSyllables) {
    const char32_t s = code - kHangul;
    out.push_back(kLead + s / (kVowels * kTails));
    out.push_back(kVowel + s % (kVowels * kTails) / kTails);
    if (s % kTails != 0) out.push_back(kTail + s % kTails);
    return;
  }
  const Decomposition* d = Lookup(kComposed, code);
  if (d == nullptr) d = Lookup(kSplitOnly, code);
  if (d == nullptr) return out.push_back(code);
  Decompose(d->first, out);  // at most four deep in the tables
  if (d->second != 0) Decompose(d->second, out);
}

// The character that `a` and `b` make together; 0 if none.
char32_t Compose(char32_t a, char32_t b) {
  if (a >= kLead && a < kLead + kLeads && b >= kVowel && b < kVowel + kVowels) {
    return kHangul + ((a - kLead) * kVowels + (b - kVowel)) * kTails;
  }
  if (a >= kHangul && a < kHangul + kSyllables && (a - kHangul) % kTails == 0 && b > kTail && b < kTail + kTails) {
    return a + (b - kTail);
  }
  static const auto pairs = [] {
    std::unordered_map<uint64_t, char32_t> out;
    for (const Decomposition& d : kComposed) out.emplace(static_cast<uint64_t>(d.first) << 32 | d.second, d.code);
    return out;
  }();
  const auto it = pairs.find(static_cast<uint64_t>(a) << 32 | b);
  return it == pairs.end() ? 0 : it->second;
}

void Normalize(std::vector<char32_t>& codes, std::string& out) {
  std::vector<char32_t> all;
  for (char32_t c : codes) Decompose(c, all);
  // Marks between two starters sort by class, stably.
  for (size_t i = 0; i < all.size();) {
    size_t end = i;
    while (end < all.size() && CombiningClass(all[end]) != 0) ++end;
    std::stable_sort(all.begin() + static_cast<ptrdiff_t>(i), all.begin() + static_cast<ptrdiff_t>(end),
                     [](char32_t a, char32_t b) { return CombiningClass(a) < CombiningClass(b); });
    i = std::max(end, i + 1);
  }
  std::vector<char32_t> done;
  size_t starter = SIZE_MAX;
  uint32_t last_class = 0;  // of what stands between the starter and here; a mark behind an equal or higher one is blocked
  for (char32_t c : all) {
    const uint32_t k = CombiningClass(c);
    if (starter != SIZE_MAX && (starter + 1 == done.size() || (last_class != 0 && last_class < k))) {
      if (const char32_t made = Compose(done[starter], c); made != 0) {
        done[starter] = made;
        continue;
      }
    }
    if (k == 0) starter = done.size();
    last_class = k;
    done.push_back(c);
  }
  for (char32_t c : done) AppendUtf8(c, out);
  codes.clear();
}

}  // namespace

std::string ComposeNfc(std::string_view text) {
  // Below U+0300 nothing combines and every character is its own normal form.
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0xCC; });
  if (plain) return std::string(text);
  std::string out;
  out.reserve(text.size());
  std::vector<char32_t> codes;
  for (size_t at = 0; at < text.size();) {
    const Character c = DecodeUtf8(text, at);
    if (c.code == kNotACharacter) {
      Normalize(codes, out);
      out += text[at];
    } else {
      codes.push_back(c.code);
    }
    at += c.bytes;
  }
  Normalize(codes, out);
  return out;
}

}  // namespace plumb::policy_model
