#include "common/text/tokenizer/precompiled_map.h"

#include <utf8proc.h>

#include <algorithm>

#include "common/base/error.h"
#include "common/text/unicode.h"

namespace plumb {
namespace {

constexpr size_t kMaxText = 1024;

// Signs for six bits each; false at another one.
bool DecodeBase64(std::string_view text, std::string& out) {
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    uint32_t six = 0;
    if (c >= 'A' && c <= 'Z') six = static_cast<uint32_t>(c - 'A');
    else if (c >= 'a' && c <= 'z') six = static_cast<uint32_t>(c - 'a') + 26;
    else if (c >= '0' && c <= '9') six = static_cast<uint32_t>(c - '0') + 52;
    else if (c == '+') six = 62;
    else if (c == '/') six = 63;
    else return false;
    bits = bits << 6 | six;
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<char>(bits >> count & 0xFF));
    }
  }
  return true;
}

// Where the cluster of characters that a reader takes for one, and that begins at `at`, ends.
size_t ClusterEnd(std::string_view text, size_t at) {
  utf8proc_int32_t state = 0;
  Character before = DecodeUtf8(text, at);
  at += before.bytes;
  while (at < text.size()) {
    const Character c = DecodeUtf8(text, at);
    if (c.code == kNotACharacter || before.code == kNotACharacter ||
        utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(before.code),
                                         static_cast<utf8proc_int32_t>(c.code), &state))
      break;
    at += c.bytes;
    before = c;
  }
  return at;
}

}  // namespace

PrecompiledMap::PrecompiledMap(std::string_view base64, const std::string& where) {
  const auto corrupt = [&](const char* what) {
    throw Error(ErrorCode::kCorruption, std::string("normalizer.precompiled_charsmap: ") + what,
                where);
  };
  std::string bytes;
  if (!DecodeBase64(base64, bytes)) corrupt("is not base64");
  const auto unit = [&](size_t at) {
    uint32_t out = 0;
    for (size_t i = 0; i < 4; ++i)
      out |= static_cast<uint32_t>(static_cast<unsigned char>(bytes[at + i])) << 8 * i;
    return out;
  };
  if (bytes.size() < 4) corrupt("is cut short");
  const size_t size = unit(0);
  if (size > bytes.size() - 4 || size % 4 != 0) corrupt("is cut short");
  for (size_t at = 4; at < 4 + size; at += 4) units_.push_back(unit(at));
  texts_ = bytes.substr(4 + size);
  for (size_t at = 0; at < texts_.size();) {
    const size_t end = std::min(texts_.find('\0', at), texts_.size());
    if (end - at > kMaxText) corrupt("makes a text of more than 1024 bytes of a character");
    at = end + 1;
  }
}

std::optional<std::string_view> PrecompiledMap::Find(std::string_view text) const {
  const auto offset = [](uint32_t u) -> size_t {
    return static_cast<size_t>(u >> 10) << ((u & (1u << 9)) >> 6);
  };
  if (units_.empty()) return std::nullopt;
  size_t node = offset(units_[0]);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) break;
    node ^= byte;
    if (node >= units_.size()) break;
    const uint32_t unit = units_[node];
    if ((unit & ((1u << 31) | 0xFF)) != byte) break;
    node ^= offset(unit);
    if (unit >> 8 & 1) {
      const size_t at = node < units_.size() ? units_[node] & ((1u << 31) - 1) : texts_.size();
      if (at >= texts_.size()) break;
      return std::string_view(texts_).substr(at, texts_.find('\0', at) - at);
    }
  }
  return std::nullopt;
}

std::string PrecompiledMap::Apply(std::string_view text) const {
  std::string out;
  out.reserve(text.size() + 16);
  for (size_t at = 0; at < text.size();) {
    const size_t end = ClusterEnd(text, at);
    const std::string_view cluster = text.substr(at, end - at);
    // The reference's rule: a short cluster is looked up as a whole first, then by characters.
    const auto whole = cluster.size() < 6 ? Find(cluster) : std::nullopt;
    if (whole) {
      out += *whole;
    } else {
      for (size_t i = 0; i < cluster.size();) {
        const std::string_view part = cluster.substr(i, DecodeUtf8(cluster, i).bytes);
        out += Find(part).value_or(part);
        i += part.size();
      }
    }
    at = end;
  }
  return out;
}

}  // namespace plumb
