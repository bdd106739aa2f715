#include "common/text/tokenizer/text_stream.h"

#include <algorithm>
#include <utility>

#include "common/text/unicode.h"

namespace plumb {

size_t OpenBytes(std::string_view text) {
  const size_t longest = std::min<size_t>(3, text.size());
  for (size_t n = 1; n <= longest; ++n) {
    const auto byte = static_cast<unsigned char>(text[text.size() - n]);
    if (byte < 0x80) return 0;
    if (byte < 0xC0) continue;  // within a character
    const size_t wanted = byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : byte < 0xF8 ? 4 : 0;
    return n < wanted ? n : 0;
  }
  return 0;
}

std::string TextStream::Add(int32_t token) {
  if (skip_special_ && tokenizer_.IsSpecial(token)) return {};
  pending_ += tokenizer_.TokenBytes(token);
  const size_t whole = pending_.size() - OpenBytes(pending_);
  std::string out = pending_.substr(0, whole);
  pending_.erase(0, whole);
  RepairUtf8(out);
  return out;
}

std::string TextStream::End() {
  std::string out = std::exchange(pending_, {});
  RepairUtf8(out);
  return out;
}

std::string ForTerminal(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Character c = DecodeUtf8(text, at);
    const bool control = c.code < 0x20 || (c.code >= 0x7F && c.code < 0xA0);
    if ((control && c.code != '\n' && c.code != '\t') || c.code == kNotACharacter) out += "\uFFFD";
    else out += text.substr(at, c.bytes);
    at += c.bytes;
  }
  return out;
}

}  // namespace plumb
