// A reward function that the command line names: FILE.py or FILE.py:FUNCTION.
//
// Purpose: what is not there is refused before a recipe names it. The file is read, never run: code
// from elsewhere runs in a sandbox only (`plumb reward test`), which also finds errors of syntax.
// Thread safety: a pure function of the text and the file system. Errors: kInvalidArgument of a
// text of another form, kNotFound of a file or a function that is not there.
#pragma once

#include <string>

namespace plumb::run {

struct PythonFunction {
  std::string file, function;
};

// `given` in its two parts; no function: empty. One that the file only may have, by what it
// imports, passes.
PythonFunction PythonFunctionOf(const std::string& given);

}  // namespace plumb::run
