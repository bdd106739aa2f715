#include "replay/json_text.h"

#include <cstdint>
#include <utility>

#include <simdjson.h>

#include "replay/line_reader.h"

namespace plumb::replay {

void AppendJsonText(std::string& out, std::string_view text) {
  out.push_back('"');
  size_t done = 0;  // runs without escapes go in one piece
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c != '"' && c != '\\' && static_cast<uint8_t>(c) >= 0x20) continue;
    out.append(text.substr(done, i - done));
    done = i + 1;
    constexpr std::string_view kShort = "\"\\\b\f\n\r\t", kName = "\"\\bfnrt";
    if (const size_t at = kShort.find(c); at != std::string_view::npos) {
      out.push_back('\\');
      out.push_back(kName[at]);
    } else {
      constexpr char kHex[] = "0123456789abcdef";
      out.append("\\u00").push_back(kHex[static_cast<uint8_t>(c) >> 4]);
      out.push_back(kHex[c & 15]);
    }
  }
  out.append(text.substr(done));
  out.push_back('"');
}

void AppendJsonMessages(std::string& out, const std::vector<Message>& messages) {
  out.push_back('[');
  for (const Message& message : messages) {
    if (&message != messages.data()) out.push_back(',');
    out.append("{\"role\":");
    AppendJsonText(out, message.role);
    const std::string_view fields = message.fields_json;
    if (!fields.starts_with("{\"content\":")) {
      out.append(",\"content\":");
      AppendJsonText(out, message.content);
    }
    if (fields.empty()) {
      out.push_back('}');
    } else {
      out.append(",").append(fields.substr(1));
    }
  }
  out.push_back(']');
}

void TakeContentAsText(Message& message) {
  if (!message.fields_json.starts_with("{\"content\":")) return;
  simdjson::dom::parser parser;
  const simdjson::dom::object fields = parser.parse(message.fields_json);
  std::string rest;
  for (const auto [key, value] : fields) {
    if (key == "content") continue;
    rest.push_back(rest.empty() ? '{' : ',');
    AppendJsonText(rest, key);
    rest.push_back(':');
    rest += simdjson::minify(value);
  }
  if (!rest.empty()) rest.push_back('}');
  message.fields_json = std::move(rest);
}

bool RepairUtf8(std::string& text) {
  if (IsUtf8(text)) return false;
  std::string out;
  out.reserve(text.size() + 16);
  for (size_t i = 0; i < text.size();) {
    size_t length = 0;
    for (size_t n = 1; n <= 4 && i + n <= text.size() && length == 0; ++n) {
      if (IsUtf8(std::string_view(text).substr(i, n))) length = n;
    }
    if (length == 0) {
      out.append("\xEF\xBF\xBD");
      ++i;
    } else {
      out.append(text, i, length);
      i += length;
    }
  }
  text = std::move(out);
  return true;
}

}  // namespace plumb::replay
