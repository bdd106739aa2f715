// A call whose name and arguments stand in tags of their own, not in JSON:
//
//   Qwen 3.5, Qwen 3 Coder   <function=f><parameter=a>1</parameter></function>
//   MiniMax M2               <invoke name="f"><parameter name="a">1</parameter></invoke>
//   GLM 4.5 to 4.7           f<arg_key>a</arg_key><arg_value>1</arg_value>
//
// each with line ends between the tags or not. Such a form does not say whether 1 is a number or a
// text: arguments are texts until a tool's schema says what they are (ToolTable::Typed).
// Thread safety: pure functions. Ownership: views of the text that was given. Errors: none is
// thrown for any bytes; what cannot be read is `malformed`, in words for the model.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb::environment {

struct TaggedCall {
  std::string_view name;
  std::vector<std::pair<std::string_view, std::string_view>> arguments;
  std::string malformed;  // not empty: nothing else counts
  const char* like = "";  // what a call of this form looks like, for who wrote one that is none
};

// What stands between the marks of a call begins as one of the three: no brace, no bracket.
bool IsTagged(std::string_view body);

// REQUIRES: IsTagged(body). One call, or several <invoke>s. A name given to two arguments of a call
// is malformed, and so is a call without a name.
std::vector<TaggedCall> ReadTagged(std::string_view body);

// What a call looks like that stands as `body` began between <tool_call>s, or between MiniMax's own
// marks; "": as JSON.
const char* LikeTagged(std::string_view body, bool minimax);

}  // namespace plumb::environment
