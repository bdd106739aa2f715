// Filters (`x | name`) and tests (`x is name`) of chat templates.
//
// Thread safety: pure functions but for the limits they spend. Errors: kInvalidArgument naming what
// was asked for.
#pragma once

#include <string>
#include <string_view>

#include "common/text/template/jinja_value.h"

namespace plumb::jinja {

bool HasFilter(std::string_view name);
bool HasTest(std::string_view name);
// REQUIRES: HasFilter(name), HasTest(name).
Value ApplyFilter(const std::string& name, const Value& input, const Arguments& arguments,
                  Limits& limits);
bool ApplyTest(const std::string& name, const Value& input, const Arguments& arguments,
               Limits& limits);

}  // namespace plumb::jinja
