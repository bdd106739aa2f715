#include "common/text/tokenizer/normalizer.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/text/character_table.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;

std::string TextOf(const Json& j, const char* key) {
  return j.is_object() && j.contains(key) && j[key].is_string() ? j[key].get<std::string>() : "";
}

bool IsSpace(char32_t code) { return ClassOf(code) == CharacterClass::kSpace; }

// Pairs of Unicode 16, which utf8proc of Debian 12 does not have.
char32_t Lower(char32_t code) {
  const char32_t known = LowerCase(code);
  if (known != code) return known;
  switch (code) {
    case 0x1C89: return 0x1C8A;
    case 0xA7CB: return 0x264;
    case 0xA7CC: return 0xA7CD;
    case 0xA7DA: return 0xA7DB;
    case 0xA7DC: return 0x19B;
    default: return code >= 0x10D50 && code <= 0x10D65 ? code + 0x20 : code;
  }
}

std::string Lowercased(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Character c = DecodeUtf8(text, at);
    if (c.code == 0x130) out += "i\u0307";  // the one whose lower case is two characters
    else if (c.code == kNotACharacter) out += text[at];
    else AppendUtf8(Lower(c.code), out);
    at += c.bytes;
  }
  return out;
}

std::string WithoutAccents(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Character c = DecodeUtf8(text, at);
    if (!IsMark(c.code)) out.append(text, at, c.bytes);
    at += c.bytes;
  }
  return out;
}

std::string Stripped(std::string_view text, bool left, bool right) {
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    const Character c = DecodeUtf8(text, begin);
    if (!IsSpace(c.code)) break;
    begin += c.bytes;
  }
  for (size_t at = begin, last = begin; right && at < text.size();) {  // behind the last other one
    const Character c = DecodeUtf8(text, at);
    at += c.bytes;
    if (!IsSpace(c.code)) last = at;
    end = last;
  }
  return std::string(text.substr(begin, end - begin));
}

std::string Replaced(std::string_view text, const SplitPattern& pattern, std::string_view by) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  pattern.Cut(text, [&](size_t from, size_t to, bool match) {
    if (match) out += by;
    else out += text.substr(from, to - from);
  });
  return out;
}

}  // namespace

Normalizer Normalizer::FromJson(const Json& j, const std::string& where) {
  Normalizer out;
  if (!j.is_null()) out.Read(j, where);
  return out;
}

void Normalizer::Read(const Json& j, const std::string& where) {
  const auto corrupt = [&](const std::string& what) {
    throw Error(ErrorCode::kCorruption, "normalizer: " + what, where);
  };
  const auto unsupported = [&](const std::string& what) {
    throw Error(ErrorCode::kUnsupported, "normalizer: " + what + " is not known here", where);
  };
  const std::string type = j.is_object() && j.contains("type") ? TextOf(j, "type") : "?";
  if (type == "Sequence") {
    if (!j.contains("normalizers") || !j["normalizers"].is_array())
      corrupt("a Sequence without normalizers");
    for (const Json& step : j["normalizers"]) Read(step, where);
    return;
  }
  Step step;
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    step.form = type == "NFC"    ? NormalForm::kNfc
                : type == "NFD"  ? NormalForm::kNfd
                : type == "NFKC" ? NormalForm::kNfkc
                                 : NormalForm::kNfkd;
  } else if (type == "Replace") {
    step.kind = Step::Kind::kReplace;
    step.text = TextOf(j, "content");
    size_t shortest = 1;  // of what is found
    const Json pattern = j.value("pattern", Json());
    if (const std::string regex = TextOf(pattern, "Regex"); !regex.empty()) {
      step.pattern = SplitPattern::FromRegex(regex);
      if (!step.pattern) unsupported("the pattern " + regex.substr(0, 400));
    } else {
      const std::string text = TextOf(pattern, "String");
      if (text.empty()) corrupt("Replace without a pattern");
      step.pattern = SplitPattern::Literal(text);
      shortest = text.size();
    }
    growth_ *= std::max<size_t>(1, (step.text.size() + shortest - 1) / shortest);
    if (growth_ > kMaxGrowth) unsupported("a chain of Replace that makes this much of a text");
  } else if (type == "Prepend") {
    step.kind = Step::Kind::kPrepend;
    step.text = TextOf(j, "prepend");
  } else if (type == "Lowercase") {
    step.kind = Step::Kind::kLowercase;
  } else if (type == "Strip") {
    step.kind = Step::Kind::kStrip;
    step.left = j.value("strip_left", Json()) == true;
    step.right = j.value("strip_right", Json()) == true;
  } else if (type == "StripAccents") {
    step.kind = Step::Kind::kStripAccents;
  } else if (type == "Precompiled") {
    step.kind = Step::Kind::kPrecompiled;
    const std::string map = TextOf(j, "precompiled_charsmap");
    if (map.empty()) return;  // changes nothing
    step.map = std::make_shared<PrecompiledMap>(map, where);
  } else {
    unsupported("'" + type + "'");
  }
  steps_.push_back(std::move(step));
}

std::string Normalizer::Apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Step::Kind::kForm: out = Normalize(step.form, out); break;
      case Step::Kind::kReplace: out = Replaced(out, *step.pattern, step.text); break;
      case Step::Kind::kPrepend:
        if (!out.empty()) out.insert(0, step.text);
        break;
      case Step::Kind::kLowercase: out = Lowercased(out); break;
      case Step::Kind::kStrip: out = Stripped(out, step.left, step.right); break;
      case Step::Kind::kStripAccents: out = WithoutAccents(out); break;
      case Step::Kind::kPrecompiled: out = step.map->Apply(out); break;
    }
  }
  return out;
}

}  // namespace plumb
