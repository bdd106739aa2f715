#include "common/net/weights/block_change.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/base/error.h"

namespace plumb {
namespace {

constexpr char kWhole = kRawBlock, kPlaces = 1, kMarks = 2;
constexpr size_t kWord = 2;

size_t Words(size_t bytes) { return (bytes + kWord - 1) / kWord; }

// How many bytes word `at` of so many bytes has: the last may be one alone.
size_t WordBytes(size_t bytes, size_t at) { return std::min(kWord, bytes - at * kWord); }

size_t NumberBytes(size_t number) {
  size_t n = 1;
  for (; number >= 128; number >>= 7) ++n;
  return n;
}

void PutNumber(size_t number, std::string& out) {
  for (; number >= 128; number >>= 7) out.push_back(static_cast<char>(number % 128 + 128));
  out.push_back(static_cast<char>(number));
}

[[noreturn]] void Refuse(const char* why) {
  throw Error(ErrorCode::kCorruption, std::string("a block of weights ") + why);
}

size_t GetNumber(std::string_view& in) {
  size_t number = 0;
  for (int shift = 0; shift < 42; shift += 7) {
    if (in.empty()) break;
    const auto byte = static_cast<uint8_t>(in[0]);
    in.remove_prefix(1);
    number |= static_cast<size_t>(byte % 128) << shift;
    if (byte < 128) return number;
  }
  Refuse("has a number that does not end");
}

// Words that differ, in order; more than `most` need not be told.
std::vector<uint32_t> Changed(std::span<const std::byte> block, std::span<const std::byte> base,
                              size_t most) {
  std::vector<uint32_t> changed;
  const size_t bytes = block.size();
  size_t at = 0;
  for (; at + 8 <= bytes && changed.size() <= most; at += 8) {
    uint64_t a, b;
    std::memcpy(&a, block.data() + at, 8);
    std::memcpy(&b, base.data() + at, 8);
    uint64_t differ = a ^ b;
    while (differ != 0) {
      const int word = std::countr_zero(differ) / 16;
      changed.push_back(static_cast<uint32_t>(at / kWord) + static_cast<uint32_t>(word));
      differ &= ~(uint64_t{0xffff} << (16 * word));
    }
  }
  for (size_t word = at / kWord; word < Words(bytes) && changed.size() <= most; ++word) {
    const size_t from = word * kWord;
    if (std::memcmp(block.data() + from, base.data() + from, WordBytes(bytes, word)) != 0)
      changed.push_back(static_cast<uint32_t>(word));
  }
  return changed;
}

std::string Whole(std::span<const std::byte> block) {
  std::string out(1, kWhole);
  out.append(reinterpret_cast<const char*>(block.data()), block.size());
  return out;
}

void PutValues(std::span<const std::byte> block, const std::vector<uint32_t>& changed,
               std::string& out) {
  for (const uint32_t word : changed) {
    out.append(reinterpret_cast<const char*>(block.data()) + word * kWord,
               WordBytes(block.size(), word));
  }
}

void TakeValue(std::string_view& in, size_t word, std::span<std::byte> into) {
  const size_t bytes = WordBytes(into.size(), word);
  if (in.size() < bytes) Refuse("promises more values than it has");
  std::memcpy(into.data() + word * kWord, in.data(), bytes);
  in.remove_prefix(bytes);
}

}  // namespace

std::string EncodeBlock(std::span<const std::byte> block, std::span<const std::byte> base) {
  const size_t words = Words(block.size());
  if (base.size() != block.size() || block.empty()) return Whole(block);
  const std::vector<uint32_t> changed = Changed(block, base, words);
  size_t places = 1 + NumberBytes(changed.size());
  uint32_t next = 0;
  for (const uint32_t word : changed) {
    places += NumberBytes(word - next);
    next = word + 1;
  }
  const size_t marks = 1 + (words + 7) / 8;
  const size_t values = changed.size() * kWord;  // one more where the last is a single byte
  if (values + std::min(places, marks) > block.size()) return Whole(block);
  std::string out;
  out.reserve(values + std::min(places, marks));
  if (places <= marks) {
    out.push_back(kPlaces);
    PutNumber(changed.size(), out);
    next = 0;
    for (const uint32_t word : changed) {
      PutNumber(word - next, out);
      next = word + 1;
    }
  } else {
    out.assign(marks, '\0');
    out[0] = kMarks;
    for (const uint32_t word : changed)
      out[1 + word / 8] = static_cast<char>(out[1 + word / 8] | (1 << (word % 8)));
  }
  PutValues(block, changed, out);
  return out;
}

std::string SameBlock() { return {kPlaces, 0}; }

std::string_view WholeBlock(std::string_view encoded) {
  return !encoded.empty() && encoded[0] == kWhole ? encoded.substr(1) : std::string_view();
}

void DecodeBlock(std::string_view in, std::span<const std::byte> base, std::span<std::byte> into) {
  if (in.empty()) Refuse("is empty");
  const char form = in[0];
  in.remove_prefix(1);
  if (form == kWhole) {
    if (in.size() != into.size()) Refuse("has another size than it should");
    if (!in.empty()) std::memcpy(into.data(), in.data(), in.size());
    return;
  }
  if (form != kPlaces && form != kMarks) Refuse("came in an unknown form");
  if (base.size() != into.size()) Refuse("came as what has changed in one that is not here");
  std::memcpy(into.data(), base.data(), base.size());
  const size_t words = Words(into.size());
  if (form == kPlaces) {
    const size_t count = GetNumber(in);
    if (count > words) Refuse("has more changes than numbers");
    std::vector<uint32_t> changed(count);
    size_t next = 0;
    for (uint32_t& word : changed) {
      next += GetNumber(in);
      if (next >= words) Refuse("has a change behind its end");
      word = static_cast<uint32_t>(next++);
    }
    for (const uint32_t word : changed) TakeValue(in, word, into);
  } else {
    const size_t bytes = (words + 7) / 8;
    if (in.size() < bytes) Refuse("promises more marks than it has");
    const std::string_view marks = in.substr(0, bytes);
    in.remove_prefix(bytes);
    for (size_t byte = 0; byte < bytes; ++byte) {
      for (auto bits = static_cast<uint8_t>(marks[byte]); bits != 0; bits &= bits - 1) {
        const size_t word = 8 * byte + static_cast<size_t>(std::countr_zero(bits));
        if (word >= words) Refuse("has a change behind its end");
        TakeValue(in, word, into);
      }
    }
  }
  if (!in.empty()) Refuse("has more values than changes");
}

}  // namespace plumb
