#include "environment/calls/tagged_call.h"

#include <algorithm>

#include "common/record/json_text.h"

namespace plumb::environment {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";
constexpr size_t kMaxArguments = 256;

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

// Without the one line end on each side that a template puts around a value.
std::string_view Value(std::string_view text) {
  if (text.starts_with("\r\n")) text.remove_prefix(2);
  else if (text.starts_with('\n')) text.remove_prefix(1);
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

std::string_view Unquoted(std::string_view text) {
  text = Trim(text);
  if (text.size() >= 2 && text.front() == text.back() &&
      (text.front() == '"' || text.front() == '\''))
    return text.substr(1, text.size() - 2);
  return text;
}

// <OPEN name>, then <PARAMETER name>value</PARAMETER> any number of times, then the end.
struct Tags {
  std::string_view open, close;            // of the call; its name up to '>'
  std::string_view parameter, value_ends;  // of an argument; its name up to '>'
  const char* like;
};
constexpr Tags kFunction = {"<function=", "</function>", "<parameter=", "</parameter>",
                            "<tool_call>\n<function=tool>\n<parameter=argument>\n1\n</"
                            "parameter>\n</function>\n</tool_call>"};
constexpr Tags kInvoke = {"<invoke name=", "</invoke>", "<parameter name=", "</parameter>",
                          "<minimax:tool_call>\n<invoke name=\"tool\">\n<parameter "
                          "name=\"argument\">1</parameter>\n</invoke>\n</minimax:tool_call>"};
constexpr char kGlm[] =
    "<tool_call>tool\n<arg_key>argument</arg_key>\n<arg_value>1</arg_value>\n</tool_call>";

// Adds an argument; what is wrong with it, "" where nothing is.
std::string AddArgument(std::string_view name, std::string_view value, TaggedCall* call) {
  if (call->arguments.size() == kMaxArguments) return "too many arguments in one call";
  for (const auto& [other, _] : call->arguments) {
    if (other == name)
      return "the argument '" + Shown(name, 60) + "' of " + Shown(call->name, 60) +
             " is given twice";
  }
  call->arguments.emplace_back(name, value);
  return "";
}

constexpr char kNoName[] = "a call without a name";

// The call at the beginning of `text`, which it is taken off.
TaggedCall TakeOne(const Tags& tags, std::string_view* text) {
  TaggedCall out{.like = tags.like};
  const auto fail = [&](std::string why) {
    out.malformed = std::move(why);
    return out;
  };
  text->remove_prefix(tags.open.size());
  const size_t named = text->find('>');
  if (named == std::string_view::npos) return fail(std::string(tags.open) + " is not closed by >");
  out.name = Unquoted(text->substr(0, named));
  if (out.name.empty()) return fail(kNoName);
  text->remove_prefix(named + 1);
  while (true) {
    *text = text->substr(std::min(text->size(), text->find_first_not_of(kBlanks)));
    if (text->starts_with(tags.close)) {
      text->remove_prefix(tags.close.size());
      return out;
    }
    if (!text->starts_with(tags.parameter)) {
      return fail("in the call of " + Shown(out.name, 60) + " stands neither " +
                  std::string(tags.parameter) + " nor " + std::string(tags.close) + ": " +
                  Shown(*text, 60));
    }
    text->remove_prefix(tags.parameter.size());
    const size_t key = text->find('>'), end = text->find(tags.value_ends);
    if (key == std::string_view::npos || end == std::string_view::npos || key > end)
      return fail("an argument of " + Shown(out.name, 60) + " is not closed by " +
                  std::string(tags.value_ends));
    if (std::string wrong = AddArgument(Unquoted(text->substr(0, key)),
                                        Value(text->substr(key + 1, end - key - 1)), &out);
        !wrong.empty())
      return fail(std::move(wrong));
    text->remove_prefix(end + tags.value_ends.size());
  }
}

TaggedCall Glm(std::string_view text) {
  static constexpr std::string_view kKey = "<arg_key>", kKeyEnd = "</arg_key>",
                                    kValue = "<arg_value>", kValueEnd = "</arg_value>";
  TaggedCall out{.like = kGlm};
  const auto fail = [&](std::string why) {
    out.malformed = std::move(why);
    return out;
  };
  const size_t first = text.find(kKey);
  out.name = Trim(text.substr(0, first));
  if (out.name.empty()) return fail(kNoName);
  text = first == std::string_view::npos ? std::string_view() : text.substr(first);
  while (!(text = Trim(text)).empty()) {
    const size_t key_end = text.find(kKeyEnd);
    if (!text.starts_with(kKey) || key_end == std::string_view::npos)
      return fail("an argument of " + Shown(out.name, 60) + " does not begin with " +
                  std::string(kKey) + "name" + std::string(kKeyEnd));
    const std::string_view key = Trim(text.substr(kKey.size(), key_end - kKey.size()));
    text = Trim(text.substr(key_end + kKeyEnd.size()));
    const size_t end = text.find(kValueEnd);
    if (!text.starts_with(kValue) || end == std::string_view::npos)
      return fail("the argument '" + Shown(key, 60) + "' has no " + std::string(kValue) + "value" +
                  std::string(kValueEnd));
    if (std::string wrong = AddArgument(key, text.substr(kValue.size(), end - kValue.size()), &out);
        !wrong.empty())
      return fail(std::move(wrong));
    text.remove_prefix(end + kValueEnd.size());
  }
  return out;
}

// Letters, digits and what names of tools have besides.
bool IsName(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.' || c == ':';
  });
}

}  // namespace

bool IsTagged(std::string_view body) {
  body = Trim(body);
  return body.starts_with(kFunction.open) || body.starts_with(kInvoke.open) ||
         IsName(Trim(body.substr(0, body.find("<arg_key>"))));
}

std::vector<TaggedCall> ReadTagged(std::string_view body) {
  std::vector<TaggedCall> out;
  body = Trim(body);
  if (!body.starts_with(kFunction.open) && !body.starts_with(kInvoke.open)) return {Glm(body)};
  while (!body.empty()) {
    const Tags& tags = body.starts_with(kInvoke.open) ? kInvoke : kFunction;
    if (!body.starts_with(tags.open)) {
      out.push_back({.malformed = "something stands behind a call that is none: " + Shown(body, 60),
                     .like = tags.like});
      return out;
    }
    out.push_back(TakeOne(tags, &body));
    if (!out.back().malformed.empty()) return out;
    body = Trim(body);
  }
  return out;
}

const char* LikeTagged(std::string_view body, bool minimax) {
  body = Trim(body);
  if (minimax || body.starts_with(kInvoke.open)) return kInvoke.like;
  if (body.starts_with(kFunction.open)) return kFunction.like;
  return IsTagged(body) ? kGlm : "";
}

}  // namespace plumb::environment
