// Tokens of a chat template -> tree.
//
// Thread safety: pure function. Errors: kCorruption with the line; kUnsupported for tags that chat
// templates do not use (include, import, extends, block, call) and for filters, tests that are not
// there.
#pragma once

#include <string_view>

#include "common/text/template/jinja_ast.h"

namespace plumb::jinja {

Body ParseTemplate(std::string_view source);

}  // namespace plumb::jinja
