#include "configs/foreign/what_else.h"

#include <cctype>
#include <filesystem>
#include <sstream>
#include <string_view>

#include "common/base/text.h"

namespace plumb::configs {
namespace {

// By its first line that is neither empty nor a comment: "key:" or "---".
bool LooksLikeYaml(const std::string& text) {
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const std::string_view said = Trim(line);
    if (said.empty() || said.front() == '#') continue;
    if (said == "---") return true;
    size_t end = 0;
    while (end < said.size() && (std::isalnum(static_cast<unsigned char>(said[end])) != 0 ||
                                 std::string_view("_-.").find(said[end]) != std::string_view::npos))
      ++end;
    return end > 0 && end < said.size() && said[end] == ':' &&
           (end + 1 == said.size() || said[end + 1] == ' ');
  }
  return false;
}

}  // namespace

std::string WhatElse(const std::string& text, const std::string& name) {
  if (Trim(text).starts_with("{"))
    return "; this is JSON, as rows of data are, and no recipe: `plumb config new` writes one for "
           "them";
  const std::string ending = std::filesystem::path(name).extension().string();
  if (ending == ".yaml" || ending == ".yml" || LooksLikeYaml(text))
    return "; this looks like YAML, and recipes are TOML, key = value below a [section]: `plumb "
           "config new` writes one";
  return "";
}

}  // namespace plumb::configs
