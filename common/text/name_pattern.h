// Patterns over the dotted names of modules and parameters, as recipes and PEFT's files write them.
//
// Purpose: one idea of what a pattern is. A text of letters, digits, '_', '-' and '.' is a name and
// means itself: "layers.1." is no part of "layers.12.". Anything else is a regular expression of
// RE2's kind, which takes linear time whatever it is given; PEFT's files hold Python's, of which
// lookaheads and back-references are refused.
// Thread safety: const after construction. Ownership: owns its text and what was compiled of it.
// Errors: kInvalidArgument at construction, with the option or file and what RE2 says.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace re2 {
class RE2;
}  // namespace re2

namespace plumb {

class NamePattern {
 public:
  enum class Where {
    kAnywhere,  // in a name
    kAll,       // of a name: PEFT's target_modules where it is one string
    // All of a name, or what comes behind a dot in it; a regular expression even where it is a
    // name: PEFT's rank_pattern and alpha_pattern.
    kEnd,
  };
  // `option`: in messages.
  NamePattern(std::string text, Where where, const std::string& option);

  bool Matches(std::string_view name) const;
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  Where where_;
  std::shared_ptr<const re2::RE2> regex_;  // nullptr: the text itself is looked for
};

// Whether a text means itself.
bool IsPlainName(std::string_view text);

}  // namespace plumb
