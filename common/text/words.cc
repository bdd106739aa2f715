#include "common/text/words.h"

#include "common/base/text.h"
#include "common/text/unicode.h"

namespace plumb {
namespace {

using plumb::Character;
using plumb::CharacterClass;
using plumb::DecodeUtf8;
using plumb::IsCaseIgnorable;

bool IsHan(char32_t c) {
  return (c >= 0x3040 && c < 0x3100) || (c >= 0x3400 && c < 0x4DC0) ||
         (c >= 0x4E00 && c < 0xA000) || (c >= 0xF900 && c < 0xFB00) ||
         (c >= 0x20000 && c < 0x32000);
}

bool IsLetterOrDigit(char32_t c) {
  if (c < 0x80) return IsDigit(static_cast<char>(c)) || plumb::IsLetter(static_cast<char>(c));
  if (c == kNotACharacter) return false;
  const CharacterClass kind = ClassOf(c);
  return kind == CharacterClass::kLetter || kind == CharacterClass::kNumber || IsMark(c) ||
         c == 0x200D;
}

bool IsLetter(std::string_view s, size_t at) {
  return at < s.size() && ClassOf(DecodeUtf8(s, at).code) == CharacterClass::kLetter;
}

bool LetterFollows(std::string_view s, size_t at) {
  while (at < s.size()) {
    const Character c = DecodeUtf8(s, at);
    if (!IsCaseIgnorable(c.code)) return IsLetter(s, at);
    at += c.bytes;
  }
  return false;
}

}  // namespace

std::vector<std::string_view> SpacedWords(std::string_view s) {
  std::vector<std::string_view> words;
  for (size_t i = 0; i < s.size();) {
    while (i < s.size() && IsSpace(s[i])) ++i;
    const size_t begin = i;
    while (i < s.size() && !IsSpace(s[i])) ++i;
    if (i > begin) words.push_back(s.substr(begin, i - begin));
  }
  return words;
}

std::string LowerUnicode(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  bool letter_before = false;
  for (size_t i = 0; i < s.size();) {
    const unsigned char byte = static_cast<unsigned char>(s[i]);
    if (byte < 0x80) {
      const bool capital = byte >= 'A' && byte <= 'Z';
      out.push_back(static_cast<char>(capital ? byte - 'A' + 'a' : byte));
      if (!IsCaseIgnorable(byte)) letter_before = capital || (byte >= 'a' && byte <= 'z');
      ++i;
      continue;
    }
    const Character c = DecodeUtf8(s, i);
    if (c.code == 0x130) {
      out += "i\xCC\x87";
    } else if (c.code == 0x3A3 && letter_before && !LetterFollows(s, i + c.bytes)) {
      out += "\xCF\x82";
    } else if (c.code == kNotACharacter) {
      out.push_back(s[i]);
    } else {
      AppendUtf8(LowerCase(c.code), out);
    }
    if (!IsCaseIgnorable(c.code)) letter_before = IsLetter(s, i);
    i += c.bytes;
  }
  return out;
}

bool IsUnicodeSpace(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

std::vector<std::string_view> UnicodeSpacedWords(std::string_view s) {
  std::vector<std::string_view> words;
  size_t begin = 0;
  for (size_t i = 0; i < s.size();) {
    const unsigned char byte = static_cast<unsigned char>(s[i]);
    const Character c = byte < 0x80 ? Character{byte, 1} : DecodeUtf8(s, i);
    if (IsUnicodeSpace(c.code)) {
      if (i > begin) words.push_back(s.substr(begin, i - begin));
      begin = i + c.bytes;
    }
    i += c.bytes;
  }
  if (s.size() > begin) words.push_back(s.substr(begin));
  return words;
}

std::vector<std::string_view> LetterWords(std::string_view s) {
  std::vector<std::string_view> words;
  size_t begin = 0;
  const auto close = [&](size_t end) {
    if (end > begin) words.push_back(s.substr(begin, end - begin));
  };
  for (size_t i = 0; i < s.size();) {
    const Character c = DecodeUtf8(s, i);
    const size_t next = i + c.bytes;
    if (IsHan(c.code)) {
      close(i);
      words.push_back(s.substr(i, c.bytes));
      begin = next;
    } else if (!IsLetterOrDigit(c.code)) {
      const bool apostrophe = c.code == '\'' || c.code == 0x2019;
      const bool inside =
          apostrophe && i > begin && next < s.size() && IsLetterOrDigit(DecodeUtf8(s, next).code);
      if (!inside) {
        close(i);
        begin = next;
      }
    }
    i = next;
  }
  close(s.size());
  return words;
}

std::vector<std::string_view> Sentences(std::string_view s) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  const auto close = [&](size_t end) {
    const std::string_view sentence = Trim(s.substr(begin, end - begin));
    if (!sentence.empty()) out.push_back(sentence);
    begin = end;
  };
  for (size_t i = 0; i < s.size();) {
    const Character c = DecodeUtf8(s, i);
    i += c.bytes;
    if (c.code == '\n' || c.code == 0x3002 || c.code == 0xFF01 || c.code == 0xFF1F) {
      close(i);
    } else if (c.code == '.' || c.code == '!' || c.code == '?') {
      // Closing quotes and brackets and further stops belong to the sentence.
      while (i < s.size() && std::string_view(".!?\"')]").find(s[i]) != std::string_view::npos) ++i;
      if (i == s.size() || IsSpace(s[i])) close(i);
    }
  }
  close(s.size());
  return out;
}

int32_t Vocabulary::Id(std::string_view word) {
  return ids_.emplace(word, static_cast<int32_t>(ids_.size())).first->second;
}

std::vector<int32_t> Vocabulary::Ids(const std::vector<std::string_view>& words) {
  std::vector<int32_t> ids;
  ids.reserve(words.size());
  for (const std::string_view word : words) ids.push_back(Id(word));
  return ids;
}

std::vector<int32_t> NgramTable::Add(const std::vector<int32_t>& ids) {
  const size_t n = static_cast<size_t>(n_);
  if (ids.size() < n) return {};
  levels_.resize(n);
  std::vector<int32_t> at = ids;
  for (size_t level = n == 1 ? 0 : 1; level < n; ++level) {
    auto& map = levels_[level];
    const size_t places = ids.size() - level;
    map.reserve(map.size() + places);
    for (size_t i = 0; i < places; ++i) {
      // n = 1: ids are numbers already, but sparse ones: renumber them by themselves.
      const uint64_t before = level == 0 ? 0 : static_cast<uint64_t>(static_cast<uint32_t>(at[i]));
      const uint64_t key = before << 32 | static_cast<uint32_t>(ids[i + level]);
      at[i] = map.emplace(key, static_cast<int32_t>(map.size())).first->second;
    }
    at.resize(places);
  }
  size_ = levels_[n - 1].size();
  return at;
}

}  // namespace plumb
