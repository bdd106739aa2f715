// What turns words into ids, for one thread at a time.
//
// Purpose: a model of tokenizer.json (BytePairs, Unigram) is const and shared; its encoders hold
// the room that a word needs and the words they have seen, so that encoding takes neither a lock
// nor memory for a word. Thread safety: none of an encoder; an encoder borrows its model.
// Errors: kInvalidArgument naming a character without a token, where no token stands for such.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

namespace plumb {

class WordEncoder {
 public:
  virtual ~WordEncoder() = default;
  // Appends the ids of `word`, which is not empty.
  virtual void Encode(std::string_view word, std::vector<int32_t>& out) = 0;

 protected:
  WordEncoder() = default;
};

// A vocabulary with a way to cut words into its tokens.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  virtual std::unique_ptr<WordEncoder> MakeEncoder() const = 0;
  // By the text or bytes that the token stands for; -1 if none.
  virtual int32_t Find(std::string_view bytes) const = 0;

 protected:
  TokenModel() = default;
};

// Words of up to 26 bytes and 8 ids by their bytes, a cache line each. A newer word takes the place
// of an older one.
class WordCache {
 public:
  static constexpr size_t kBytes = 26, kIds = 8;
  struct Entry {
    uint32_t hash = 0;
    uint8_t bytes = 0, ids = 0;
    char word[kBytes];
    int32_t id[kIds];
  };
  static_assert(sizeof(Entry) == 64);

  explicit WordCache(int bits) : bits_(bits), entries_(size_t{1} << bits) {}

  // `hash` is for Put.
  const Entry* Find(std::string_view word, uint64_t* hash) const {
    *hash = Hash(word);
    const Entry& e = entries_[*hash >> (64 - bits_)];
    return e.hash == static_cast<uint32_t>(*hash) && e.bytes == word.size() &&
                   std::memcmp(e.word, word.data(), word.size()) == 0
               ? &e
               : nullptr;
  }
  void Put(std::string_view word, uint64_t hash, const int32_t* ids, size_t count) {
    Entry& e = entries_[hash >> (64 - bits_)];
    e.hash = static_cast<uint32_t>(hash);
    e.bytes = static_cast<uint8_t>(word.size());
    e.ids = static_cast<uint8_t>(count);
    std::memcpy(e.word, word.data(), word.size());
    std::memcpy(e.id, ids, count * sizeof(int32_t));
  }

  static uint64_t Hash(std::string_view word) {
    constexpr uint64_t kFactor = 0x9E3779B97F4A7C15;
    uint64_t hash = word.size() * kFactor;
    const char* at = word.data();
    size_t left = word.size();
    for (; left >= 8; at += 8, left -= 8) hash = Mix(hash, Load<uint64_t>(at));
    if (left >= 4) {
      hash = Mix(hash, Load<uint32_t>(at) | uint64_t{Load<uint32_t>(at + left - 4)} << 32);
    } else if (left > 0) {
      const auto byte = [&](size_t i) { return uint64_t{static_cast<unsigned char>(at[i])}; };
      hash = Mix(hash, byte(0) | byte(left / 2) << 8 | byte(left - 1) << 16);
    }
    return hash * kFactor;
  }

 private:
  template <class T>
  static T Load(const char* at) {
    T out;
    std::memcpy(&out, at, sizeof out);
    return out;
  }
  static uint64_t Mix(uint64_t hash, uint64_t next) {
    hash = (hash ^ next) * 0xD6E8FEB86659FD93;
    return hash ^ hash >> 32;
  }

  const int bits_;
  std::vector<Entry> entries_;
};

}  // namespace plumb
