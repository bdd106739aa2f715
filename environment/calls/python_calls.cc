#include "environment/calls/python_calls.h"

#include <cctype>
#include <set>

#include "common/record/json_text.h"

namespace plumb::environment {
namespace {

constexpr size_t kMaxCalls = 65;  // one more than a turn may have, whose reader says so

class Reader {
 public:
  Reader(std::string_view text, std::string* malformed) : text_(text), malformed_(malformed) {}

  std::vector<PythonCall> List() {
    std::vector<PythonCall> out;
    if (!Take('[')) Fail("a list of calls begins with [");
    while (malformed_->empty() && !Take(']')) {
      if (!out.empty() && !Take(',')) Fail("between two calls stands a comma");
      PythonCall call = Call();
      if (malformed_->empty()) out.push_back(std::move(call));
      if (out.size() > kMaxCalls) break;
    }
    Blanks();
    if (malformed_->empty() && at_ < text_.size() && out.size() <= kMaxCalls)
      Fail("something stands behind the list of calls");
    if (malformed_->empty() && out.empty()) Fail("a list of calls without a call");
    return out;
  }

 private:
  void Fail(const std::string& why) {
    if (malformed_->empty()) *malformed_ = why + ": " + Shown(text_.substr(at_), 60);
  }
  void Blanks() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  bool Take(char wanted) {
    Blanks();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  std::string Name() {
    Blanks();
    const size_t begin = at_;
    const auto part = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '-';
    };
    while (at_ < text_.size() && part(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  PythonCall Call() {
    PythonCall out{Name(), "{"};
    if (out.name.empty() || !Take('(')) {
      Fail("a call is name(argument=value)");
      return out;
    }
    std::set<std::string> names;
    while (malformed_->empty() && !Take(')')) {
      if (out.arguments.size() > 1) {
        if (!Take(',')) Fail("between two arguments of " + out.name + " stands a comma");
        out.arguments += ',';
      }
      const std::string key = Name();
      if (key.empty() || !Take('=')) Fail("an argument of " + out.name + " is name=value");
      if (!names.insert(key).second)
        Fail("the argument '" + key + "' of " + out.name + " is given twice");
      if (malformed_->empty()) out.arguments += DumpJson(key) + ":" + Value();
    }
    out.arguments += '}';
    return out;
  }

  // To the comma or bracket behind it, as JSON.
  std::string Value() {
    std::string out;
    int64_t depth = 0;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"' || c == '\'') {
        out += Quoted();
        continue;
      }
      if (std::isalpha(static_cast<unsigned char>(c)) != 0) {
        const std::string word = Name();
        out += word == "True" ? "true" : word == "False" ? "false" : word == "None" ? "null" : word;
        continue;
      }
      if (depth == 0 && (c == ',' || c == ')')) return out;
      if (c == '[' || c == '{' || c == '(') ++depth;
      if (c == ']' || c == '}' || c == ')') --depth;
      out += c;
      ++at_;
    }
    Fail("a value has no end");
    return out;
  }

  std::string Quoted() {
    const char quote = text_[at_++];
    std::string text;
    for (; at_ < text_.size(); ++at_) {
      char c = text_[at_];
      if (c == quote) {
        ++at_;
        return DumpJson(text);
      }
      if (c == '\\' && at_ + 1 < text_.size()) {
        c = text_[++at_];
        if (c == 'n') c = '\n';
        else if (c == 't') c = '\t';
        else if (c == 'r') c = '\r';
        else if (c != '\\' && c != '\'' && c != '"') text += '\\';
      }
      text += c;
    }
    Fail("a text is not closed");
    return "";
  }

  std::string_view text_;
  size_t at_ = 0;
  std::string* malformed_;
};

}  // namespace

std::vector<PythonCall> ReadPythonCalls(std::string_view list, std::string* malformed) {
  return Reader(list, malformed).List();
}

}  // namespace plumb::environment
