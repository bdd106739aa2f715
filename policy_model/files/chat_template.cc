#include "policy_model/files/chat_template.h"

#include <utility>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "policy_model/files/jinja_interpreter.h"
#include "policy_model/files/jinja_parser.h"
#include "policy_model/files/strict_json.h"

namespace plumb::policy_model {
namespace {

using jinja::Value;
using Json = nlohmann::ordered_json;
using Names = std::vector<std::pair<std::string, std::string>>;

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

class Template : public ChatTemplate {
 public:
  Template(std::string source, Names tokens) : source_(std::move(source)), tokens_(std::move(tokens)) {
    if (source_.size() > kMaxTemplateBytes) throw Error(ErrorCode::kCorruption, "the chat template has more than 1 MiB");
    body_ = jinja::ParseTemplate(source_);
  }

  std::string Render(std::span<const Message> messages, bool add_generation_prompt) const override {
    std::vector<Value> list;
    for (const Message& m : messages) {
      auto dict = std::make_shared<jinja::Dict>();
      dict->items = {{"role", Value::Text(m.role)}, {"content", Value::Text(m.content)}};
      list.push_back(Value::MakeDict(std::move(dict)));
    }
    // The same names that transformers' apply_chat_template gives: no tools and no documents are none, not undefined.
    std::vector<std::pair<std::string, Value>> globals = {{"messages", Value::MakeList(std::move(list))},
                                                          {"tools", Value::MakeNone()},
                                                          {"documents", Value::MakeNone()},
                                                          {"add_generation_prompt", Value::Bool(add_generation_prompt)}};
    for (const auto& [name, token] : tokens_) globals.emplace_back(name, Value::Text(token));
    return jinja::Render(body_, std::move(globals));
  }
  const std::string& source() const override { return source_; }

 private:
  const std::string source_;
  const Names tokens_;
  jinja::Body body_;
};

// A special token in tokenizer_config.json: its text, or an object with it; "" when the model has none.
std::string TokenText(const Json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) return (*found)["content"].get<std::string>();
  return "";
}

// `chat_template`: one text, or a list of {"name", "template"} of which "default" is meant.
std::string TemplateText(const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array()) {
    for (const Json& entry : value) {
      if (entry.is_object() && entry.contains("name") && entry["name"] == "default" && entry.contains("template") && entry["template"].is_string()) {
        return entry["template"].get<std::string>();
      }
    }
  }
  throw Error(ErrorCode::kCorruption, "'chat_template' is neither a text nor a list with one named \"default\"", where);
}

}  // namespace

std::unique_ptr<ChatTemplate> ChatTemplate::LoadOrNull(const std::string& directory) {
  const std::string jinja_path = directory + "/chat_template.jinja", config_path = directory + "/tokenizer_config.json";
  Json config = Json::object();
  if (RealFileSystem().Exists(config_path)) config = ReadStrictJson(config_path, kMaxConfigBytes);
  if (!config.is_object()) throw Error(ErrorCode::kCorruption, "is not a JSON object", config_path);
  std::string source, where;
  if (RealFileSystem().Exists(jinja_path)) {
    source = RealFileSystem().ReadFile(jinja_path, kMaxTemplateBytes);
    where = jinja_path;
  } else if (config.contains("chat_template") && !config["chat_template"].is_null()) {
    source = TemplateText(config["chat_template"], config_path);
    where = config_path;
  } else {
    return nullptr;
  }
  Names tokens;
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"}) {
    if (std::string text = TokenText(config, key); !text.empty()) tokens.emplace_back(key, std::move(text));
  }
  try {
    return std::make_unique<Template>(std::move(source), std::move(tokens));
  } catch (const Error& e) {
    throw Error(e.code(), e.message(), where + (e.where().empty() ? "" : " (" + e.where() + ")"));
  }
}

std::unique_ptr<ChatTemplate> ChatTemplate::Parse(std::string source, std::string bos, std::string eos) {
  Names tokens;
  if (!bos.empty()) tokens.emplace_back("bos_token", std::move(bos));
  if (!eos.empty()) tokens.emplace_back("eos_token", std::move(eos));
  return std::make_unique<Template>(std::move(source), std::move(tokens));
}

std::unique_ptr<ChatTemplate> ChatTemplate::BuiltIn(const std::string& name) {
  if (name == "chatml") {
    return Parse("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
                 "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
                 "<|im_start|>", "<|im_end|>");
  }
  throw Error(ErrorCode::kInvalidArgument, "there is no built-in chat template '" + name + "': use \"chatml\"");
}

}  // namespace plumb::policy_model
