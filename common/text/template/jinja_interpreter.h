// Runs the tree of a chat template.
//
// Thread safety: one rendering is one thread's; the tree is only read. Errors: kInvalidArgument
// with the line, for what the template raises itself (raise_exception) as for what it does wrong;
// nothing a template does can run, recurse or grow without end.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/text/template/jinja_ast.h"

namespace plumb::jinja {

std::string Render(const Body& body, std::vector<std::pair<std::string, Value>> globals);

}  // namespace plumb::jinja
