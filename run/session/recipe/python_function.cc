#include "run/session/recipe/python_function.h"

#include <cctype>
#include <filesystem>
#include <string_view>

#include "common/base/error.h"
#include "common/base/file.h"

namespace plumb::run {
namespace {

bool IsWordCharacter(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

// Whether the Python `text` defines, assigns or imports `name`, by its words alone: it is not run
// here. Where in doubt it does.
bool MayDefine(const std::string& text, const std::string& name) {
  if (text.find("import *") != std::string::npos) return true;
  const bool imports = text.find("import ") != std::string::npos;
  for (size_t at = text.find(name); at != std::string::npos; at = text.find(name, at + 1)) {
    size_t end = at + name.size(), begin = at;
    if ((at > 0 && IsWordCharacter(text[at - 1])) ||
        (end < text.size() && IsWordCharacter(text[end])))
      continue;
    if (imports) return true;
    while (begin > 0 && (text[begin - 1] == ' ' || text[begin - 1] == '\t')) --begin;
    const std::string_view before = std::string_view(text).substr(0, begin);
    if (begin < at && (before.ends_with("def") || before.ends_with("class"))) return true;
    while (end < text.size() && (text[end] == ' ' || text[end] == '\t')) ++end;
    if (end < text.size() && (text[end] == '=' || text[end] == ':')) return true;
  }
  return false;
}

}  // namespace

PythonFunction PythonFunctionOf(const std::string& given) {
  const size_t colon = given.rfind(".py:");
  PythonFunction from{.file = given, .function = ""};
  if (colon != std::string::npos)
    from = {.file = given.substr(0, colon + 3), .function = given.substr(colon + 4)};
  if (!from.file.ends_with(".py")) {
    throw Error(ErrorCode::kInvalidArgument,
                "is \"" + given +
                    "\": write FILE.py or FILE.py:FUNCTION; parts of other kinds are written into "
                    "the recipe (docs/rewards.md)",
                "--reward");
  }
  std::error_code ignored;
  if (!std::filesystem::exists(from.file, ignored))
    throw Error(ErrorCode::kNotFound, "is not there", from.file);
  if (colon == std::string::npos) return from;
  if (from.function.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "is \"" + given + "\": behind the colon no function is named", "--reward");
  }
  if (!MayDefine(RealFileSystem().ReadFile(from.file, size_t{16} << 20), from.function)) {
    throw Error(ErrorCode::kNotFound,
                "has no function '" + from.function + "' (looked for `def " + from.function +
                    "` and `" + from.function + " =`)",
                from.file);
  }
  return from;
}

}  // namespace plumb::run
