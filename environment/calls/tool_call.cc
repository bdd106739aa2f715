#include "environment/calls/tool_call.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/record/json_text.h"
#include "environment/calls/python_calls.h"
#include "environment/calls/tagged_call.h"

namespace plumb::environment {
namespace {

using Json = nlohmann::ordered_json;
using configs::ToolForm;

constexpr int kDepth = 64;
constexpr size_t kMaxCalls = 64;  // in one turn

// DeepSeek's tokens: full-width bars and lower blocks.
#define PLUMB_BAR "\xEF\xBD\x9C"
#define PLUMB_LOW "\xE2\x96\x81"
constexpr std::string_view kCallsBegin =
    "<" PLUMB_BAR "tool" PLUMB_LOW "calls" PLUMB_LOW "begin" PLUMB_BAR ">";
constexpr std::string_view kCallsEnd =
    "<" PLUMB_BAR "tool" PLUMB_LOW "calls" PLUMB_LOW "end" PLUMB_BAR ">";
constexpr std::string_view kCallBegin =
    "<" PLUMB_BAR "tool" PLUMB_LOW "call" PLUMB_LOW "begin" PLUMB_BAR ">";
constexpr std::string_view kCallEnd =
    "<" PLUMB_BAR "tool" PLUMB_LOW "call" PLUMB_LOW "end" PLUMB_BAR ">";
constexpr std::string_view kSeparator = "<" PLUMB_BAR "tool" PLUMB_LOW "sep" PLUMB_BAR ">";
#undef PLUMB_BAR
#undef PLUMB_LOW

constexpr std::string_view kBlanks = " \t\r\n";

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

// The end of the object or list that begins at text[0], quotes minded; npos: it does not end.
size_t JsonEnd(std::string_view text) {
  int64_t depth = 0;
  bool quoted = false;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      if (c == '\\') ++at;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if ((c == '}' || c == ']') && --depth <= 0) {
      return at + 1;
    }
  }
  return std::string_view::npos;
}

// Collects the calls of a turn until one cannot be read.
class Reader {
 public:
  // An object with name and arguments (or parameters).
  void Object(const Json& call) {
    if (!call.is_object()) return Fail("a call has to be a JSON object");
    const auto name = call.find("name");
    if (name == call.end() || !name->is_string()) return Fail("a call needs \"name\", a text");
    Json arguments = Json::object();
    for (const char* key : {"arguments", "parameters"}) {
      if (call.contains(key)) arguments = call[key];
    }
    const auto id = call.find("id");
    Add(name->get<std::string>(), std::move(arguments),
        id != call.end() && id->is_string() ? id->get<std::string>() : "");
  }

  void Text(std::string_view text) {
    Json call;
    if (Parse(Trim(text), &call)) Object(call);
  }

  // Arguments that stand by themselves.
  void Named(std::string_view name, std::string_view arguments, std::string_view id = {}) {
    Json parsed = Json::object();
    if (const std::string_view text = Trim(arguments); !text.empty() && !Parse(text, &parsed))
      return;
    Add(std::string(Trim(name)), std::move(parsed), std::string(Trim(id)));
  }

  bool Parse(std::string_view text, Json* out) {
    if (TooDeep(text, kDepth)) {
      Fail("the call is nested too deep");
      return false;
    }
    *out = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (out->is_discarded()) Fail("the call is no JSON: " + Shown(text, 80));
    return !out->is_discarded();
  }

  void Tagged(const TaggedCall& call) {
    const Trying trying(*this, call.like);
    if (!call.malformed.empty()) return Fail(call.malformed);
    Json arguments = Json::object();
    for (const auto& [key, value] : call.arguments) arguments[std::string(key)] = value;
    const size_t before = turn_.calls.size();
    Add(std::string(call.name), std::move(arguments), "");
    if (turn_.calls.size() > before) turn_.calls.back().spelled = true;
  }

  void Python(std::string_view list) {
    const Trying trying(*this, kLikePythonCalls);
    std::string malformed;
    for (const PythonCall& call : ReadPythonCalls(list, &malformed)) {
      if (!TooDeep(call.arguments, kDepth) && !Json::accept(call.arguments))
        return Fail("an argument of " + Shown(call.name, 60) +
                    " is no text in quotes, number, True, False, None, list or dictionary: " +
                    Shown(call.arguments, 80));
      Named(call.name, call.arguments);
    }
    if (!malformed.empty()) Fail(malformed);
  }

  void NotClosed(std::string_view open, std::string_view close, const char* like) {
    const Trying trying(*this, like);
    Fail(std::string(open) + " is not closed by " + std::string(close));
  }

  void Fail(const std::string& why) {
    if (failed()) return;
    turn_.malformed = why;
    turn_.like = trying_;
  }
  bool failed() const { return !turn_.malformed.empty(); }
  void Content(std::string_view text) { turn_.content += text; }

  ParsedTurn Done() {
    turn_.content = std::string(Trim(turn_.content));
    if (failed()) turn_.calls.clear();
    return std::move(turn_);
  }

 private:
  void Add(std::string name, Json arguments, std::string id) {
    if (failed()) return;
    if (name.empty()) return Fail("a call without a name");
    // Some models write the arguments as a text that holds the JSON.
    if (arguments.is_string()) {
      const std::string text = arguments.get<std::string>();
      if (!Parse(text, &arguments)) return;
    }
    if (arguments.is_null()) arguments = Json::object();
    if (!arguments.is_object())
      return Fail("the arguments of " + Shown(name, 60) + " have to be a JSON object");
    if (turn_.calls.size() == kMaxCalls)
      return Fail("more than " + std::to_string(kMaxCalls) + " calls in one turn");
    turn_.calls.push_back({std::move(id), std::move(name), DumpJson(arguments)});
  }

  // While it lives, what fails is answered with what a call of this form looks like.
  class Trying {
   public:
    Trying(Reader& reader, const char* like) : reader_(reader) { reader_.trying_ = like; }
    ~Trying() { reader_.trying_ = ""; }

   private:
    Reader& reader_;
  };

  ParsedTurn turn_;
  const char* trying_ = "";
};

ParsedTurn Hermes(std::string_view text) {
  struct Marks {
    std::string_view open, close;
  };
  static constexpr Marks kUsual = {"<tool_call>", "</tool_call>"};
  static constexpr Marks kMiniMax = {"<minimax:tool_call>", "</minimax:tool_call>"};
  static constexpr Marks kLfm = {"<|tool_call_start|>", "<|tool_call_end|>"};
  Reader out;
  while (!out.failed()) {
    size_t open = std::string_view::npos;
    Marks marks = kUsual;
    for (const Marks& one : {kUsual, kMiniMax, kLfm}) {
      if (const size_t at = text.find(one.open); at < open) open = at, marks = one;
    }
    out.Content(text.substr(0, open));
    if (open == std::string_view::npos) break;
    text.remove_prefix(open + marks.open.size());
    const size_t close = text.find(marks.close);
    if (close == std::string_view::npos) {
      out.NotClosed(marks.open, marks.close,
                    marks.open == kLfm.open
                        ? kLikePythonCalls
                        : LikeTagged(text, /*minimax=*/marks.open == kMiniMax.open));
      break;
    }
    const std::string_view body = text.substr(0, close);
    if (marks.open == kLfm.open) {
      out.Python(body);
    } else if (IsTagged(body)) {
      for (const TaggedCall& call : ReadTagged(body)) out.Tagged(call);
    } else {
      out.Text(body);
    }
    text.remove_prefix(close + marks.close.size());
  }
  return out.Done();
}

// name.call(key="value", other=3), what follows <|python_tag|> for Llama's own tools.
void CallExpression(std::string_view text, Reader& out) {
  const size_t call = text.find(".call(");
  if (call == std::string_view::npos || text.back() != ')')
    return out.Fail("behind <|python_tag|> stands neither a JSON object nor name.call(..): " +
                    Shown(text, 80));
  std::string_view rest = text.substr(call + 6, text.size() - call - 7);
  Json arguments = Json::object();
  while (!(rest = Trim(rest)).empty()) {
    const size_t equals = rest.find('=');
    if (equals == std::string_view::npos)
      return out.Fail("an argument of " + Shown(text.substr(0, call), 60) +
                      " has no name: write name=value");
    const std::string key(Trim(rest.substr(0, equals)));
    rest = Trim(rest.substr(equals + 1));
    // To the comma behind the value; quotes and brackets hide theirs.
    int64_t depth = 0;
    bool quoted = false;
    size_t end = 0;
    for (; end < rest.size(); ++end) {
      const char c = rest[end];
      if (quoted) {
        if (c == '\\') ++end;
        if (c == '"') quoted = false;
      } else if (c == '"') {
        quoted = true;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if (c == '}' || c == ']') {
        --depth;
      } else if (c == ',' && depth == 0) {
        break;
      }
    }
    end = std::min(end, rest.size());
    Json value;
    if (!out.Parse(Trim(rest.substr(0, end)), &value)) return;
    if (arguments.contains(key))
      return out.Fail("the argument '" + Shown(key, 60) + "' of " +
                      Shown(text.substr(0, call), 60) + " is given twice");
    arguments[key] = std::move(value);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  out.Named(text.substr(0, call), DumpJson(arguments));
}

ParsedTurn Llama3(std::string_view text) {
  static constexpr std::string_view kTag = "<|python_tag|>";
  Reader out;
  const size_t tag = text.find(kTag);
  const bool tagged = tag != std::string_view::npos;
  std::string_view rest = Trim(text);
  if (tagged) {
    out.Content(text.substr(0, tag));
    rest = Trim(text.substr(tag + kTag.size()));
    if (rest.empty()) out.Fail("nothing stands behind <|python_tag|>");
  }
  // An answer may begin with a brace, too: without the tag only what names a tool is a call.
  const bool meant =
      rest.starts_with('{') && (tagged || (rest.find("\"name\"") != std::string_view::npos &&
                                           (rest.find("\"parameters\"") != std::string_view::npos ||
                                            rest.find("\"arguments\"") != std::string_view::npos)));
  if (!meant) {
    if (!tagged) out.Content(text);
    if (tagged && !out.failed()) CallExpression(rest, out);
    return out.Done();
  }
  while (!rest.empty() && !out.failed()) {
    if (!rest.starts_with('{')) {
      out.Fail("something stands behind a call that is none: " + Shown(rest, 80));
      break;
    }
    const size_t end = JsonEnd(rest);
    if (end == std::string_view::npos) {
      out.Fail("the call's braces are not closed");
      break;
    }
    out.Text(rest.substr(0, end));
    rest = Trim(rest.substr(end));
    if (rest.starts_with(';')) rest = Trim(rest.substr(1));
  }
  return out.Done();
}

ParsedTurn Mistral(std::string_view text) {
  static constexpr std::string_view kCalls = "[TOOL_CALLS]", kArgs = "[ARGS]", kId = "[CALL_ID]";
  Reader out;
  size_t at = text.find(kCalls);
  out.Content(text.substr(0, at));
  while (at != std::string_view::npos && !out.failed()) {
    text.remove_prefix(at + kCalls.size());
    at = text.find(kCalls);
    const std::string_view one = Trim(text.substr(0, at));
    if (one.starts_with('[') || one.starts_with('{')) {
      Json calls;
      if (!out.Parse(one, &calls)) break;
      if (!calls.is_array()) calls = Json::array({calls});
      if (calls.empty()) out.Fail("[TOOL_CALLS] with an empty list");
      for (const Json& call : calls) out.Object(call);
      continue;
    }
    const size_t args = one.find(kArgs);
    if (args == std::string_view::npos) {
      out.Fail("behind [TOOL_CALLS] stands neither a list of calls nor name[ARGS]{..}");
      break;
    }
    std::string_view name = one.substr(0, args), id;
    if (const size_t mark = name.find(kId); mark != std::string_view::npos) {
      id = name.substr(mark + kId.size());
      name = name.substr(0, mark);
    }
    out.Named(name, one.substr(args + kArgs.size()), id);
  }
  return out.Done();
}

ParsedTurn Deepseek(std::string_view text) {
  Reader out;
  const size_t begin = std::min(text.find(kCallsBegin), text.find(kCallBegin));
  out.Content(text.substr(0, begin));
  if (begin == std::string_view::npos) return out.Done();
  text.remove_prefix(begin);
  size_t calls = 0;
  for (size_t at; (at = text.find(kCallBegin)) != std::string_view::npos && !out.failed();
       ++calls) {
    text.remove_prefix(at + kCallBegin.size());
    const size_t end = text.find(kCallEnd);
    if (end == std::string_view::npos) {
      out.Fail("a tool call has no end token");
      break;
    }
    const std::string_view one = text.substr(0, end);
    text.remove_prefix(end + kCallEnd.size());
    const size_t separator = one.find(kSeparator);
    if (separator == std::string_view::npos) {
      out.Fail("a tool call has no separator token between its type and its name");
      break;
    }
    std::string_view name = Trim(one.substr(0, separator)),
                     rest = Trim(one.substr(separator + kSeparator.size()));
    if (name == "function" && !rest.starts_with('{')) {  // type, then name and a block
      const size_t fence = rest.find("```json"), last = rest.rfind("```");
      if (fence == std::string_view::npos || last < fence + 7) {
        out.Fail("the arguments of a tool call do not stand between ```json and ```");
        break;
      }
      name = rest.substr(0, fence);
      rest = rest.substr(fence + 7, last - fence - 7);
    }
    out.Named(name, rest);
  }
  if (calls == 0) out.Fail("a list of tool calls without a call");
  if (const size_t end = text.find(kCallsEnd); end != std::string_view::npos)
    out.Content(text.substr(end + kCallsEnd.size()));
  return out.Done();
}

ParsedTurn Harmony(std::string_view text) {
  static constexpr std::string_view kMessage = "<|message|>", kTo = "to=functions.";
  static constexpr std::string_view kEnds[] = {"<|end|>", "<|call|>", "<|return|>", "<|start|>"};
  Reader out;
  while (!text.empty() && !out.failed()) {
    const size_t message = text.find(kMessage);
    const std::string_view header = text.substr(0, message);
    const size_t to = header.find(kTo);
    if (message == std::string_view::npos) {
      if (to != std::string_view::npos) {
        out.Fail("a call of functions.* without <|message|> and arguments");
      } else if (header.find("<|channel|>") == std::string_view::npos) {
        out.Content(text);  // no message of the form at all: what was said
      }
      break;
    }
    text.remove_prefix(message + kMessage.size());
    size_t end = text.size();
    size_t skip = 0;
    for (const std::string_view mark : kEnds) {
      if (const size_t at = text.find(mark); at < end) end = at, skip = mark.size();
    }
    const std::string_view body = text.substr(0, end);
    if (to != std::string_view::npos) {
      std::string_view name = header.substr(to + kTo.size());
      name = name.substr(0, name.find_first_of(" \t\r\n<"));
      out.Named(name, body);
    } else if (header.find("<|channel|>final") != std::string_view::npos ||
               header.find("<|channel|>") == std::string_view::npos) {
      out.Content(body);
    }
    text.remove_prefix(std::min(text.size(), end + skip));
  }
  return out.Done();
}

}  // namespace

ParsedTurn ParseTurn(ToolForm form, std::string_view text) {
  switch (form) {
    case ToolForm::kHermes: return Hermes(text);
    case ToolForm::kLlama3: return Llama3(text);
    case ToolForm::kMistral: return Mistral(text);
    case ToolForm::kDeepseek: return Deepseek(text);
    case ToolForm::kHarmony: return Harmony(text);
    case ToolForm::kAuto: break;
  }
  PLUMB_CHECK(false, "tool_form auto is resolved before a turn is read");
  return {};
}

ToolForm FormOfTemplate(std::string_view chat_template) {
  const auto has = [&](std::string_view mark) {
    return chat_template.find(mark) != std::string_view::npos;
  };
  if (has("<|channel|>") && has("to=functions.")) return ToolForm::kHarmony;
  if (has(kCallsBegin) || has(kCallBegin)) return ToolForm::kDeepseek;
  if (has("[TOOL_CALLS]")) return ToolForm::kMistral;
  if (has("<tool_call>") || has("<minimax:tool_call>")) return ToolForm::kHermes;
  if (has("<|python_tag|>") || (has("ipython") && has("\"parameters\""))) return ToolForm::kLlama3;
  return ToolForm::kHermes;
}

}  // namespace plumb::environment
