#include "common/text/tokenizer/text_stream.h"

#include "common/text/unicode.h"

namespace plumb {

std::string TextStream::Add(int32_t token) {
  std::string out;
  if (!(skip_special_ && tokenizer_.IsSpecial(token))) decoder_->Add(token, out);
  return out;
}

std::string TextStream::End() {
  std::string out;
  decoder_->End(out);
  decoder_ = tokenizer_.MakeDecoder();
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
