// Values of options as TOML writes them.
//
// Purpose: one way for the stored recipe, the listing for people and messages. Thread safety: pure
// functions. Errors: none.
#pragma once

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "configs/choices.h"

namespace plumb::configs {

inline std::string Quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (u < 0x20 || u == 0x7F) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04X", u);
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

inline std::string Text(const std::string& v) { return Quote(v); }
template <Choice E>
std::string Text(E v) {
  return Quote(NameOf(v));
}
inline std::string Text(bool v) { return v ? "true" : "false"; }
inline std::string Text(int64_t v) { return std::to_string(v); }
inline std::string Text(uint64_t v) { return std::to_string(v); }
inline std::string Text(double v) {
  // Shortest digits that read back to the same number; TOML wants a point or an exponent in a
  // float.
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, v).ptr;
  std::string out(buffer, end);
  if (out.find_first_of(".en") == std::string::npos) out += ".0";
  return out;
}
// As people write it in a sentence, which wants no point.
inline std::string NumberText(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", v);
  return text;
}
inline std::string Text(const std::vector<std::string>& v) {
  std::string out = "[";
  for (size_t i = 0; i < v.size(); ++i) out += (i ? ", " : "") + Quote(v[i]);
  return out + "]";
}
inline std::string Text(const std::map<std::string, std::string>& v) {
  std::string out = "{";
  for (const auto& [key, value] : v)
    out += (out.size() > 1 ? ", " : " ") + Quote(key) + " = " + Quote(value);
  return out + (v.empty() ? "}" : " }");
}

}  // namespace plumb::configs
