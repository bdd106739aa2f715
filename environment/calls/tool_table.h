// The tools that a conversation has: names, schemas, and whether a call is one that they take.
//
// Purpose: read from a JSON array as chat templates take it, {"type": "function", "function":
// {"name", "description", "parameters"}}, or the inner objects by themselves. Of a parameter's
// schema are checked: type (a name or a list), enum, const, required, properties,
// additionalProperties = false, items, minimum, maximum, minLength, maxLength, minItems, maxItems,
// anyOf. Other keywords are left to the tool itself, which is asked in the end and may refuse.
// Thread safety: immutable after construction. Errors: the constructor throws
// Error(kInvalidArgument) naming the tool; Check says what is wrong in words for the model.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/problem.h"
#include "environment/calls/tool_call.h"

namespace plumb::environment {

class ToolTable {
 public:
  ToolTable();  // no tools
  explicit ToolTable(std::string_view json);
  ~ToolTable();
  ToolTable(ToolTable&&) noexcept;
  ToolTable& operator=(ToolTable&&) noexcept;

  bool empty() const { return names_.empty(); }
  const std::vector<std::string>& names() const { return names_; }
  // One JSON array of the outer form; "" where there are none.
  const std::string& json() const { return json_; }
  // A spelled call with its arguments as its tool's schema has them: a text where that takes one,
  // else the JSON (or Python's True, False, None) that the text is. Other calls stay as they are.
  ToolCall Typed(ToolCall call) const;
  // Unknown name, or arguments that its schema does not take.
  Problem Check(const ToolCall& call) const;

 private:
  std::vector<std::string> names_;
  std::string json_;
  std::unique_ptr<std::vector<nlohmann::json>> parameters_;  // [names]
};

// What `value` lacks of `schema`; `place` is its name in the sentence.
Problem CheckValue(const nlohmann::json& schema, const nlohmann::json& value,
                   const std::string& place, int depth = 0);

}  // namespace plumb::environment
