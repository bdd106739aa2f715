// What a request is refused with, in the form that OpenAI's clients read.
//
// Purpose: an answer of the server and no failure of it: thrown by whoever reads a request or takes
// it on, caught where replies are written. Thread safety: values; pure functions.
#pragma once

#include <string>

#include "common/base/error.h"

namespace plumb::run {

struct ApiError {
  int status = 400;     // of HTTP
  std::string message;  // what, and what to do
  std::string param;    // the field that it is about; "": none
  std::string code;     // a word for programs; "": none
};

// {"error": {"message", "type", "param", "code"}}
std::string ErrorJson(const ApiError& error);
// An Error of reading, rendering or tokenizing what was sent: 400; what is ours: 500.
ApiError AsApiError(const Error& error);

}  // namespace plumb::run
