#include "common/text/template/special_tokens.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json/strict_json.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

// A text, or an object with it; "" when the model has none.
std::string TokenText(const Json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string())
    return (*found)["content"].get<std::string>();
  return "";
}

}  // namespace

std::map<std::string, std::string> ReadSpecialTokens(const std::string& directory) {
  std::map<std::string, std::string> out;
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const std::string path = directory + "/" + name;
    if (!RealFileSystem().Exists(path)) continue;
    const Json config = ReadStrictJson(path, kMaxConfigBytes);
    if (!config.is_object()) throw Error(ErrorCode::kCorruption, "is not a JSON object", path);
    for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token",
                            "cls_token", "mask_token"}) {
      if (std::string text = TokenText(config, key); !text.empty()) out[key] = std::move(text);
    }
  }
  return out;
}

}  // namespace plumb
