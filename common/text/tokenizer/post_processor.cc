#include "common/text/tokenizer/post_processor.h"

#include "common/base/error.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void Corrupt(const std::string& what, const std::string& where) {
  throw Error(ErrorCode::kCorruption, "post_processor: " + what, where);
}

int32_t IdOf(const Json& j, const std::string& where) {
  if (!j.is_number_unsigned() || j.get<uint64_t>() > INT32_MAX)
    Corrupt("an id is not a whole number", where);
  return j.get<int32_t>();
}

void ReadTemplate(const Json& j, const std::string& where, Surroundings& out) {
  const Json single = j.value("single", Json()), named = j.value("special_tokens", Json::object());
  if (!single.is_array()) Corrupt("a TemplateProcessing without 'single'", where);
  Surroundings added;
  bool behind = false;
  for (const Json& piece : single) {
    if (piece.is_object() && piece.contains("Sequence")) {
      if (behind) Corrupt("'single' holds the text twice", where);
      behind = true;
      continue;
    }
    const Json special = piece.is_object() ? piece.value("SpecialToken", Json()) : Json();
    if (!special.is_object() || !special.contains("id") || !special["id"].is_string())
      Corrupt("'single' holds something else than tokens and the text", where);
    const auto name = special["id"].get<std::string>();
    if (!named.is_object() || !named.contains(name) || !named[name].is_object() ||
        !named[name].contains("ids") || !named[name]["ids"].is_array())
      Corrupt("'special_tokens' has no ids of '" + name.substr(0, 100) + "'", where);
    for (const Json& id : named[name]["ids"])
      (behind ? added.back : added.front).push_back(IdOf(id, where));
  }
  if (!behind) Corrupt("'single' does not hold the text", where);
  out.front.insert(out.front.begin(), added.front.begin(), added.front.end());
  out.back.insert(out.back.end(), added.back.begin(), added.back.end());
}

void Read(const Json& j, const std::string& where, Surroundings& out) {
  const std::string type = j.is_object() && j.contains("type") && j["type"].is_string()
                               ? j["type"].get<std::string>()
                               : "?";
  if (type == "Sequence") {
    if (!j.contains("processors") || !j["processors"].is_array())
      Corrupt("a Sequence without processors", where);
    for (const Json& inner : j["processors"]) Read(inner, where, out);
  } else if (type == "TemplateProcessing") {
    ReadTemplate(j, where, out);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    for (const auto& [key, front] : {std::pair("cls", true), std::pair("sep", false)}) {
      const Json token = j.value(key, Json());  // [text, id]
      if (!token.is_array() || token.size() != 2)
        Corrupt(std::string("has no '") + key + "'", where);
      const int32_t id = IdOf(token[1], where);
      if (front) out.front.insert(out.front.begin(), id);
      else out.back.push_back(id);
    }
  } else if (type != "ByteLevel") {
    throw Error(ErrorCode::kUnsupported, "post_processor: '" + type + "' is not known here", where);
  }
}

}  // namespace

Surroundings ReadPostProcessor(const Json& j, const std::string& where) {
  Surroundings out;
  if (!j.is_null()) Read(j, where, out);
  return out;
}

}  // namespace plumb
