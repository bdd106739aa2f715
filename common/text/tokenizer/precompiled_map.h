// The character map of SentencePiece models that tokenizer.json carries ("Precompiled"): a double
// array of what is replaced and a list of what it becomes.
//
// Thread safety: const after construction. Time: linear in the text.
// Errors: kCorruption when the map does not hold together; a map that points outside of itself is
// taken to end there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace plumb {

class PrecompiledMap {
 public:
  // `base64`: little-endian size of the array in bytes, the array, the texts, each ended by a zero.
  PrecompiledMap(std::string_view base64, const std::string& where);

  std::string Apply(std::string_view text) const;

 private:
  // What the shortest beginning of `text` that the map has becomes.
  std::optional<std::string_view> Find(std::string_view text) const;

  std::vector<uint32_t> units_;
  std::string texts_;
};

}  // namespace plumb
