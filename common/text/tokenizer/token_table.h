// Texts of tokens -> ids: one block of bytes and one of slots.
//
// Thread safety: const methods may be called concurrently once nothing is added. Ownership: copies
// the texts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/tokenizer/word_encoder.h"

namespace plumb {

class TokenTable {
 public:
  // False when the text is there already.
  bool Add(std::string_view text, int32_t id) {
    if (2 * (entries_.size() + 1) > slots_.size()) Grow();
    const uint64_t hash = WordCache::Hash(text);
    uint32_t& slot = slots_[SlotOf(text, hash)];
    if (slot != 0) return false;
    entries_.push_back(
        {bytes_.size(), static_cast<uint32_t>(text.size()), static_cast<uint32_t>(hash), id});
    bytes_ += text;
    slot = static_cast<uint32_t>(entries_.size());
    return true;
  }
  // -1 if none.
  int32_t Find(std::string_view text) const {
    if (slots_.empty()) return -1;
    const uint32_t slot = slots_[SlotOf(text, WordCache::Hash(text))];
    return slot == 0 ? -1 : entries_[slot - 1].id;
  }
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    size_t at;
    uint32_t bytes, hash;
    int32_t id;
  };
  // Where `text` is or would be; a slot holds an entry's index + 1, or 0.
  size_t SlotOf(std::string_view text, uint64_t hash) const {
    const size_t mask = slots_.size() - 1;
    for (size_t i = (hash >> 32) & mask;; i = (i + 1) & mask) {
      if (slots_[i] == 0) return i;
      const Entry& e = entries_[slots_[i] - 1];
      if (e.hash == static_cast<uint32_t>(hash) && e.bytes == text.size() &&
          std::string_view(bytes_).substr(e.at, e.bytes) == text)
        return i;
    }
  }
  void Grow() {
    slots_.assign(slots_.empty() ? 64 : 2 * slots_.size(), 0);
    const size_t mask = slots_.size() - 1;
    for (uint32_t n = 0; n < entries_.size(); ++n) {
      const std::string_view text =
          std::string_view(bytes_).substr(entries_[n].at, entries_[n].bytes);
      size_t i = (WordCache::Hash(text) >> 32) & mask;
      while (slots_[i] != 0) i = (i + 1) & mask;
      slots_[i] = n + 1;
    }
  }

  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> slots_;  // a power of two, at most half full
};

}  // namespace plumb
