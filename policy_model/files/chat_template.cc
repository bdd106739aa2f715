#include "policy_model/files/chat_template.h"

#include "common/error.h"
#include "common/file.h"
#include "policy_model/files/strict_json.h"

namespace plumb::policy_model {

std::unique_ptr<ChatTemplate> ChatTemplate::LoadOrNull(const std::string& directory) {
  constexpr size_t kMaxBytes = size_t{4} << 20;
  const std::string jinja = directory + "/chat_template.jinja", config_path = directory + "/tokenizer_config.json";
  nlohmann::ordered_json config = nlohmann::ordered_json::object();
  if (RealFileSystem().Exists(config_path)) config = ReadStrictJson(config_path, kMaxBytes);
  std::string source;
  if (RealFileSystem().Exists(jinja)) source = RealFileSystem().ReadFile(jinja, kMaxBytes);
  else if (config.is_object() && config.contains("chat_template") && config["chat_template"].is_string()) source = config["chat_template"].get<std::string>();
  else return nullptr;
  return Parse(source, "", "");
}
std::unique_ptr<ChatTemplate> ChatTemplate::Parse(std::string, std::string, std::string) {
  throw Error(ErrorCode::kUnsupported, "chat templates are not interpreted yet");
}
std::unique_ptr<ChatTemplate> ChatTemplate::BuiltIn(const std::string& name) {
  throw Error(ErrorCode::kUnsupported, "chat template " + name + " is not there yet");
}

}  // namespace plumb::policy_model
