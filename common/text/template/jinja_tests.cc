// The tests of chat templates: `x is name(arguments)`.
#include <map>

#include "common/text/template/jinja_filters.h"
#include "common/text/template/jinja_methods.h"

namespace plumb::jinja {
namespace {

struct Test {
  const char* parameters;  // as Arguments::Check takes them
  bool (*holds)(const Value& v, const Arguments& a, Limits& limits);
};

const Value& Need(const Arguments& a, std::string_view name) {
  const Value* given = a.Get(0, name);
  if (given == nullptr) TemplateError("this test needs a value to compare with");
  return *given;
}
bool Equals(const Value& v, const Arguments& a, Limits& limits) {
  return Equal(v, Need(a, "other"), limits);
}
bool NotEquals(const Value& v, const Arguments& a, Limits& limits) { return !Equals(v, a, limits); }
bool IsLess(const Value& v, const Arguments& a, Limits& limits) {
  return Less(v, Need(a, "other"), limits);
}
bool IsGreater(const Value& v, const Arguments& a, Limits& limits) {
  return Less(Need(a, "other"), v, limits);
}
bool AtMost(const Value& v, const Arguments& a, Limits& limits) {
  return IsLess(v, a, limits) || Equals(v, a, limits);
}
bool AtLeast(const Value& v, const Arguments& a, Limits& limits) {
  return IsGreater(v, a, limits) || Equals(v, a, limits);
}

// Python's `is` for what templates compare with it: none, true, false.
bool SameAs(const Value& v, const Arguments& a, Limits& limits) {
  const Value& other = Need(a, "other");
  return v.is_bool() == other.is_bool() && v.is_float() == other.is_float() &&
         Equal(v, other, limits);
}

int64_t Whole(const Value& v) {
  if (!v.is_int() && !v.is_bool()) TemplateError("this test needs a whole number");
  return v.as_int();
}

bool HasCase(const Value& v, bool upper, Limits& limits) {
  const std::string t = ToText(v, limits);
  return upper ? UpperText(t) == t && LowerText(t) != t : LowerText(t) == t && UpperText(t) != t;
}

bool Walkable(const Value& v, const Arguments&, Limits&) {
  return v.is_text() || v.is_list() || v.is_dict() || v.is_undefined();
}

const std::map<std::string, Test, std::less<>>& Tests() {
  static const std::map<std::string, Test, std::less<>> tests = {
      {"defined",
       {"", [](const Value& v, const Arguments&, Limits&) { return !v.is_undefined(); }}},
      {"undefined",
       {"", [](const Value& v, const Arguments&, Limits&) { return v.is_undefined(); }}},
      {"none", {"", [](const Value& v, const Arguments&, Limits&) { return v.is_none(); }}},
      {"string", {"", [](const Value& v, const Arguments&, Limits&) { return v.is_text(); }}},
      {"mapping",
       {"", [](const Value& v, const Arguments&,
               Limits&) { return v.is_dict() && !v.dict().is_namespace; }}},
      {"iterable", {"", Walkable}},
      {"sequence", {"", Walkable}},
      {"number", {"", [](const Value& v, const Arguments&, Limits&) { return v.is_number(); }}},
      {"integer", {"", [](const Value& v, const Arguments&, Limits&) { return v.is_int(); }}},
      {"float", {"", [](const Value& v, const Arguments&, Limits&) { return v.is_float(); }}},
      {"boolean", {"", [](const Value& v, const Arguments&, Limits&) { return v.is_bool(); }}},
      {"true",
       {"", [](const Value& v, const Arguments&, Limits&) { return v.is_bool() && v.as_bool(); }}},
      {"false",
       {"", [](const Value& v, const Arguments&, Limits&) { return v.is_bool() && !v.as_bool(); }}},
      {"callable", {"", [](const Value& v, const Arguments&, Limits&) { return v.is_function(); }}},
      {"filter",
       {"", [](const Value& v, const Arguments&,
               Limits&) { return v.is_text() && HasFilter(v.text()); }}},
      {"test",
       {"", [](const Value& v, const Arguments&,
               Limits&) { return v.is_text() && HasTest(v.text()); }}},
      {"upper",
       {"",
        [](const Value& v, const Arguments&, Limits& limits) { return HasCase(v, true, limits); }}},
      {"lower",
       {"", [](const Value& v, const Arguments&,
               Limits& limits) { return HasCase(v, false, limits); }}},
      {"odd", {"", [](const Value& v, const Arguments&, Limits&) { return (Whole(v) & 1) != 0; }}},
      {"even", {"", [](const Value& v, const Arguments&, Limits&) { return (Whole(v) & 1) == 0; }}},
      {"divisibleby",
       {"num",
        [](const Value& v, const Arguments& a, Limits&) {
          const int64_t by = Whole(Need(a, "num"));
          if (by == 0) TemplateError("division by zero");
          return by == -1 || Whole(v) % by == 0;
        }}},
      {"in",
       {"seq", [](const Value& v, const Arguments& a,
                  Limits& limits) { return Contains(Need(a, "seq"), v, limits); }}},
      {"sameas", {"other", SameAs}},
      {"equalto", {"other", Equals}},
      {"eq", {"other", Equals}},
      {"==", {"other", Equals}},
      {"ne", {"other", NotEquals}},
      {"!=", {"other", NotEquals}},
      {"lt", {"other", IsLess}},
      {"<", {"other", IsLess}},
      {"lessthan", {"other", IsLess}},
      {"gt", {"other", IsGreater}},
      {">", {"other", IsGreater}},
      {"greaterthan", {"other", IsGreater}},
      {"le", {"other", AtMost}},
      {"<=", {"other", AtMost}},
      {"ge", {"other", AtLeast}},
      {">=", {"other", AtLeast}},
  };
  return tests;
}

}  // namespace

bool HasTest(std::string_view name) { return Tests().contains(name); }

bool ApplyTest(const std::string& name, const Value& input, const Arguments& arguments,
               Limits& limits) {
  limits.Spend();
  const Test& test = Tests().find(name)->second;
  arguments.Check(name, test.parameters);
  return test.holds(input, arguments, limits);
}

}  // namespace plumb::jinja
