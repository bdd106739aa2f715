// Calls written as a list in Python: [f(a="x", n=1), g()], as LFM 2 writes them.
//
// Purpose: the arguments become the JSON object that every other form has. Read are names with
// keyword arguments, whose values are what Python's literals have in common with JSON: texts in
// either quotes, numbers, True, False, None (and JSON's words), lists, dictionaries. An
// argument that is given twice is malformed, as it is in Python.
// Thread safety: pure functions. Ownership: values. Errors: none is thrown for any bytes; what
// cannot be read is `malformed`, in words for the model.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace plumb::environment {

struct PythonCall {
  std::string name;
  std::string arguments;  // JSON, not yet parsed: it may be none
};

// What a call of this form looks like, for who wrote one that is none.
inline constexpr char kLikePythonCalls[] = "<|tool_call_start|>[tool(argument=1)]<|tool_call_end|>";

std::vector<PythonCall> ReadPythonCalls(std::string_view list, std::string* malformed);

}  // namespace plumb::environment
