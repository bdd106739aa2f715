#include "common/record/kept_tokens.h"

#include <algorithm>
#include <bit>
#include <string>

#include "common/base/error.h"

namespace plumb {
namespace {

constexpr int64_t kMaxId = INT32_MAX;

[[noreturn]] void Malformed(const std::string& what) {
  throw Error(ErrorCode::kCorruption, "malformed list of kept tokens: " + what);
}

void AppendNumber(uint64_t value, std::vector<uint8_t>& out) {
  for (; value >= 128; value >>= 7) out.push_back(static_cast<uint8_t>(value | 128));
  out.push_back(static_cast<uint8_t>(value));
}

// Takes a number off the front.
uint64_t TakeNumber(std::span<const uint8_t>& from) {
  uint64_t value = 0;
  for (int shift = 0; shift < 35; shift += 7) {
    if (from.empty()) Malformed("it ends inside a number");
    const uint8_t byte = from.front();
    from = from.subspan(1);
    value |= static_cast<uint64_t>(byte & 127) << shift;
    if (byte < 128) {
      if (byte == 0 && shift > 0) Malformed("a number is not in its shortest form");
      return value;
    }
  }
  Malformed("a number is too long");
}

// visit(id) for each token of a checked set that is not `every token`; stops where visit returns
// false.
template <class Visit>
void ForEachKept(std::span<const uint8_t> set, Visit visit) {
  const uint64_t head = TakeNumber(set);
  if (head % 2 == 0) {
    int64_t id = -1;
    for (uint64_t n = head / 2; n > 0; --n) {
      id += static_cast<int64_t>(TakeNumber(set)) + 1;
      if (!visit(id)) return;
    }
    return;
  }
  for (size_t i = 0; i < set.size(); ++i) {
    for (uint32_t bits = set[i]; bits != 0; bits &= bits - 1) {
      if (!visit(static_cast<int64_t>(8 * i) + std::countr_zero(bits))) return;
    }
  }
}

}  // namespace

void AppendKeptTokens(std::span<const uint32_t> words, int64_t vocab, std::vector<uint8_t>& out) {
  PLUMB_CHECK(static_cast<int64_t>(words.size()) == (vocab + 31) / 32, "a bit a token");
  int64_t kept = 0;
  size_t last = 0;
  for (size_t w = 0; w < words.size(); ++w) {
    kept += std::popcount(words[w]);
    if (words[w] != 0) last = w;
  }
  if (kept == vocab) {
    out.push_back(0);
    return;
  }
  PLUMB_CHECK(kept > 0, "a filter keeps something");
  const auto bytes = static_cast<uint64_t>(4 * last) +
                     static_cast<uint64_t>(39 - std::countl_zero(words[last])) / 8;
  const size_t begin = out.size();
  if (static_cast<uint64_t>(kept) < bytes) {  // a byte a token at least
    AppendNumber(2 * static_cast<uint64_t>(kept), out);
    int64_t before = -1;
    for (size_t w = 0; w <= last; ++w) {
      for (uint32_t bits = words[w]; bits != 0; bits &= bits - 1) {
        const int64_t id = static_cast<int64_t>(32 * w) + std::countr_zero(bits);
        AppendNumber(static_cast<uint64_t>(id - before - 1), out);
        before = id;
      }
    }
    if (out.size() - begin <= bytes + 3) return;
    out.resize(begin);
  }
  AppendNumber(2 * bytes + 1, out);
  for (uint64_t i = 0; i < bytes; ++i) {
    out.push_back(static_cast<uint8_t>(words[i / 4] >> (8 * (i % 4))));
  }
}

std::span<const uint8_t> KeptTokensReader::Next() {
  std::span<const uint8_t> left = rest_;
  const uint64_t head = TakeNumber(left);
  if (head % 2 == 1) {
    const uint64_t bytes = head / 2;
    if (bytes == 0 || bytes > left.size() || bytes > static_cast<uint64_t>(kMaxId) / 8) {
      Malformed("its bits are not there");
    }
    left = left.subspan(bytes);
    if (*(left.data() - 1) == 0) Malformed("its bits end in none");
  } else {
    if (head / 2 > left.size()) Malformed("its tokens are not there");
    int64_t id = -1;
    for (uint64_t n = head / 2; n > 0; --n) {
      id += static_cast<int64_t>(TakeNumber(left)) + 1;
      if (id > kMaxId) Malformed("a token has a number beyond 2^31");
    }
  }
  const auto set = rest_.first(rest_.size() - left.size());
  rest_ = left;
  return set;
}

bool KeepsEveryToken(std::span<const uint8_t> set) { return set.empty() || set.front() == 0; }

bool Keeps(std::span<const uint8_t> set, int32_t token) {
  if (KeepsEveryToken(set)) return true;
  bool found = false;
  ForEachKept(set, [&](int64_t id) {
    found = id == token;
    return id < token;
  });
  return found;
}

int64_t CountKept(std::span<const uint8_t> set) {
  int64_t count = 0;
  if (KeepsEveryToken(set)) return count;
  ForEachKept(set, [&](int64_t) { return ++count > 0; });
  return count;
}

void UnpackKeptTokens(std::span<const uint8_t> set, int64_t vocab, std::span<uint32_t> words) {
  PLUMB_CHECK(static_cast<int64_t>(words.size()) == (vocab + 31) / 32, "a bit a token");
  if (KeepsEveryToken(set)) {
    std::fill(words.begin(), words.end(), ~uint32_t{0});
    if (vocab % 32 != 0) words.back() >>= 32 - vocab % 32;
    return;
  }
  std::fill(words.begin(), words.end(), 0);
  ForEachKept(set, [&](int64_t id) {
    if (id >= vocab) {
      Malformed("token " + std::to_string(id) + " of a vocabulary of " + std::to_string(vocab));
    }
    words[static_cast<size_t>(id / 32)] |= uint32_t{1} << (id % 32);
    return true;
  });
}

}  // namespace plumb
