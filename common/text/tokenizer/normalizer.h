// What is done to a text before it is cut into words: the steps of "normalizer" in tokenizer.json.
//
// Thread safety: const after construction. Time: linear in the text, but for marks in a row, which
// are sorted. Bytes that are not UTF-8 stay as they are.
// Errors: kUnsupported naming the file, the key and what is not known, or that steps make too much
// of a text.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/tokenizer/precompiled_map.h"
#include "common/text/tokenizer/split_pattern.h"
#include "common/text/unicode.h"

namespace plumb {

// What all Replace steps of a file together may make of one byte.
inline constexpr size_t kMaxGrowth = 4096;

class Normalizer {
 public:
  static Normalizer FromJson(const nlohmann::ordered_json& j, const std::string& where);

  // Nothing is ever changed.
  bool empty() const { return steps_.empty(); }
  std::string Apply(std::string_view text) const;

 private:
  struct Step {
    enum class Kind {
      kForm,
      kReplace,
      kPrepend,
      kLowercase,
      kStrip,
      kStripAccents,
      kPrecompiled,
    };
    Kind kind = Kind::kForm;
    NormalForm form = NormalForm::kNfc;
    std::optional<SplitPattern> pattern;
    std::string text;  // in front, or in place of what was found
    bool left = false, right = false;
    std::shared_ptr<const PrecompiledMap> map;
  };
  void Read(const nlohmann::ordered_json& j, const std::string& where);

  std::vector<Step> steps_;
  size_t growth_ = 1;  // how many bytes Replace steps may make of one
};

}  // namespace plumb
