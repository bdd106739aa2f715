#include "run/report/html.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

namespace plumb::run {

std::string EscapeHtml(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      case '\n':
      case '\t': out += c; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          out += "\xE2\x90";  // U+2400 on: the pictures of control characters
          out += c == 0x7f ? '\xA1' : static_cast<char>(0x80 + c);
        } else {
          out += c;
        }
    }
  }
  return out;
}

std::string ValidUtf8(std::string_view bytes) {
  using Json = nlohmann::json;
  return Json::parse(Json(bytes).dump(-1, ' ', false, Json::error_handler_t::replace))
      .get<std::string>();
}

std::string CutText(std::string_view text, size_t limit, std::string& note) {
  note.clear();
  if (text.size() <= limit) return std::string(text);
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  note = Grouped(static_cast<double>(text.size() - end)) + " bytes more";
  return std::string(text.substr(0, end));
}

std::string Format(const char* format, double value) {
  char out[64];
  std::snprintf(out, sizeof out, format, value);
  return out;
}

std::string Grouped(double value) {
  std::string digits = Format("%.0f", std::abs(value)), out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += "\xC2\xA0";
    out += digits[i];
  }
  return value < 0 ? "-" + out : out;
}

std::string DurationText(double seconds) {
  if (seconds < 120) return Format("%.1f s", seconds);
  const auto total = static_cast<int64_t>(seconds);
  char out[48];
  if (total < 7200)
    std::snprintf(out, sizeof out, "%lld min %lld s", static_cast<long long>(total / 60),
                  static_cast<long long>(total % 60));
  else
    std::snprintf(out, sizeof out, "%lld h %lld min", static_cast<long long>(total / 3600),
                  static_cast<long long>(total / 60 % 60));
  return out;
}

std::string DateText(double wall_s) {
  if (!(wall_s > 0 && wall_s < 1e11)) return "";
  const auto seconds = static_cast<std::time_t>(wall_s);
  std::tm parts{};
  char out[64];
  if (gmtime_r(&seconds, &parts) == nullptr) return "";
  std::strftime(out, sizeof out, "%Y-%m-%d %H:%M UTC", &parts);
  return out;
}

}  // namespace plumb::run
