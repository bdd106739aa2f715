#include "common/record/json_text.h"

#include <algorithm>
#include <cstdint>

#include "common/base/text.h"

namespace plumb {
namespace {

// `text` with each bare NaN, Infinity and -Infinity turned into null.
std::string WithoutNotFinite(std::string_view text, bool* found) {
  std::string out;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    size_t skip = 0;
    if (!quoted) {
      for (std::string_view word : {"NaN", "-Infinity", "Infinity"}) {
        if (text.substr(i).starts_with(word)) skip = std::max(skip, word.size());
      }
    }
    if (skip > 0) {
      out += "null";
      *found = true;
      i += skip - 1;
      continue;
    }
    out.push_back(text[i]);
    if (quoted && text[i] == '\\' && i + 1 < text.size()) {
      out.push_back(text[++i]);
    } else if (text[i] == '"') {
      quoted = !quoted;
    }
  }
  return out;
}

}  // namespace

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
      out.append("\\u00").append(Hex(std::as_bytes(std::span(&c, 1))));
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

bool TooDeep(std::string_view text, int limit) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if ((c == '{' || c == '[') && ++depth > limit) {
      return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

nlohmann::json ParseLooseJson(std::string_view text, bool* not_finite) {
  nlohmann::json value = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_discarded()) return value;
  // Python writes NaN and Infinity, which are no JSON: take them for what they mean, a score that
  // is no number.
  bool found = false;
  const std::string nulls = WithoutNotFinite(text, &found);
  if (!found) return value;
  value = nlohmann::json::parse(nulls, nullptr, /*allow_exceptions=*/false);
  *not_finite = !value.is_discarded();
  return value;
}

std::string Shown(std::string_view text, size_t limit) {
  std::string shown(text.substr(0, limit));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = ' ';
  }
  if (text.size() > limit) shown += "...";
  return shown;
}

std::string DumpJson(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

nlohmann::ordered_json PromptJson(const Prompt& prompt) {
  if (prompt.messages.empty()) return prompt.text;
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  for (const Message& m : prompt.messages) {
    nlohmann::ordered_json message = {{"role", m.role}, {"content", m.content}};
    if (!m.fields_json.empty() && !TooDeep(m.fields_json, 64)) {
      const auto fields =
          nlohmann::ordered_json::parse(m.fields_json, nullptr, /*allow_exceptions=*/false);
      if (fields.is_object()) message.update(fields);
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

std::string ExtraJson(const Prompt& prompt) {
  const std::string& extra = prompt.extra_json;
  const size_t first = extra.find_first_not_of(" \t");
  const bool usable = first != std::string::npos && extra[first] == '{' &&
                      extra.find('\n') == std::string::npos && !TooDeep(extra, 64) &&
                      nlohmann::json::accept(extra);
  return usable ? extra : "{}";
}

}  // namespace plumb
