// What values can do in chat templates: attributes, methods of texts, lists and dictionaries,
// subscripts, slices.
//
// Thread safety: pure functions but for the limits they spend. Errors: kInvalidArgument naming what
// was asked for.
#pragma once

#include <string>
#include <string_view>

#include "common/text/template/jinja_value.h"

namespace plumb::jinja {

[[noreturn]] void TemplateError(const std::string& what);

// `a.name`: a method, else the item of that name, else undefined. `limits` has to outlive the
// method.
Value Attribute(const Value& target, std::string_view name, Limits& limits);
// `a[key]`: the item, else (for a text key) the method, else undefined.
Value Item(const Value& target, const Value& key, Limits& limits);
// Attribute by attribute along "a.b.0", as the `attribute=` of map, selectattr and sort goes; what
// is undefined on the way becomes `otherwise` where that is given.
Value LookUpPath(const Value& target, std::string_view path, Limits& limits,
                 const Value* otherwise = nullptr);
// a[begin:end:step] with Python's rules; absent parts are nullptr. Texts are cut at characters.
Value Slice(const Value& target, const Value* begin, const Value* end, const Value* step,
            Limits& limits);

// Letters of ASCII, Latin-1, Greek and Cyrillic change their case, all others stay.
std::string UpperText(std::string_view text);
std::string LowerText(std::string_view text);
std::string CapitalizeText(std::string_view text);
// Lines without (or with) their ends, where Python's str.splitlines() sees them.
std::vector<Value> SplitLines(std::string_view text, bool keep_ends, Limits& limits);
// `count` < 0: every occurrence.
std::string ReplaceText(std::string_view text, std::string_view from, std::string_view to,
                        int64_t count, Limits& limits);
// Takes the characters of `characters` away at the chosen ends; nullptr: white space.
std::string StripText(std::string_view text, const std::string* characters, bool left, bool right);

}  // namespace plumb::jinja
