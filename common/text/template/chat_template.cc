#include "common/text/template/chat_template.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json/strict_json.h"
#include "common/text/template/jinja_interpreter.h"
#include "common/text/template/jinja_parser.h"
#include "common/text/template/special_tokens.h"

namespace plumb {
namespace {

using jinja::Value;
using Json = nlohmann::ordered_json;
using Names = std::vector<std::pair<std::string, std::string>>;

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

constexpr char kFieldsWhere[] = "a message's further fields",
               kColumnsWhere[] = "the row's other columns";

Value ValueOf(const Json& j, const char* where) {
  switch (j.type()) {
    case Json::value_t::null: return Value::MakeNone();
    case Json::value_t::boolean: return Value::Bool(j.get<bool>());
    case Json::value_t::number_integer: return Value::Int(j.get<int64_t>());
    case Json::value_t::number_unsigned:
      if (j.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
        throw Error(
            ErrorCode::kInvalidArgument,
            "holds the number " + j.dump() + ": a chat template takes whole numbers of 64 bits",
            where);
      }
      return Value::Int(static_cast<int64_t>(j.get<uint64_t>()));
    case Json::value_t::number_float: return Value::Float(j.get<double>());
    case Json::value_t::string: return Value::Text(j.get<std::string>());
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(j.size());
      for (const Json& item : j) items.push_back(ValueOf(item, where));
      return Value::MakeList(std::move(items));
    }
    case Json::value_t::object: {
      auto dict = std::make_shared<jinja::Dict>();
      for (const auto& [key, value] : j.items())
        dict->items.emplace_back(Value::Text(key), ValueOf(value, where));
      return Value::MakeDict(std::move(dict));
    }
    case Json::value_t::binary:
    case Json::value_t::discarded: break;
  }
  throw Error(ErrorCode::kCorruption, "is no JSON", where);
}

Json ParseObject(std::string_view text, const char* where) {
  Json j = ParseStrictJson(text, where);
  if (!j.is_object()) throw Error(ErrorCode::kCorruption, "is no JSON object", where);
  return j;
}

Value ValueOf(const Message& m) {
  static const Value kRole = Value::Text("role"), kContent = Value::Text("content");
  auto dict = std::make_shared<jinja::Dict>();
  dict->items = {{kRole, Value::Text(m.role)}, {kContent, Value::Text(m.content)}};
  if (!m.fields_json.empty()) {
    const Json fields = ParseObject(m.fields_json, kFieldsWhere);
    for (const auto& [key, value] : fields.items()) dict->Set(key, ValueOf(value, kFieldsWhere));
  }
  return Value::MakeDict(std::move(dict));
}

Json ToolList(const Json& column) {
  const bool is_text = column.is_string();
  try {
    Json list =
        is_text ? ParseStrictJson(column.get_ref<const std::string&>(), kColumnsWhere) : column;
    if (list.is_null() || list.is_array()) return list;
  } catch (const Error&) {
    // Said below.
  }
  throw Error(
      ErrorCode::kInvalidArgument,
      "'tools' is neither a list nor a text that holds one; a column of another meaning "
      "needs another name, for the chat template takes this one for the tools of the prompt",
      kColumnsWhere);
}

// Adds what the template sees of a row's columns; true where they name tools.
bool AddColumns(std::string_view columns_json,
                std::vector<std::pair<std::string, Value>>& globals) {
  constexpr std::string_view kTools = "tools", kArguments = "chat_template_kwargs";
  const auto mentions = [&](std::string_view name) {
    return columns_json.find(name) != std::string_view::npos;
  };
  if (!mentions(kTools) && !mentions(kArguments)) return false;  // most rows: nothing is parsed
  const Json columns = ParseObject(columns_json, kColumnsWhere);
  const auto set = [&](const std::string& name, Value value) {
    for (auto& [known, old] : globals) {
      if (known == name) {
        old = std::move(value);
        return;
      }
    }
    globals.emplace_back(name, std::move(value));
  };
  const auto refuse = [](std::string_view name, const char* what) {
    throw Error(ErrorCode::kInvalidArgument, "'" + std::string(name) + "' is " + what,
                kColumnsWhere);
  };
  bool has_tools = false;
  if (const auto tools = columns.find(std::string(kTools)); tools != columns.end()) {
    const Json list = ToolList(*tools);
    has_tools = list.is_array();
    if (has_tools) set("tools", ValueOf(list, kColumnsWhere));
  }
  if (const auto more = columns.find(std::string(kArguments));
      more != columns.end() && !more->is_null()) {
    if (!more->is_object()) refuse(kArguments, "no object");
    for (const auto& [name, value] : more->items()) {
      if (name == "messages" || name == "add_generation_prompt" || name == "tools") {
        refuse(kArguments, "no place for messages, tools and add_generation_prompt");
      }
      set(name, ValueOf(value, kColumnsWhere));
    }
  }
  return has_tools;
}

class Template : public ChatTemplate {
 public:
  // `tool_use`: what renders a prompt with tools; "" for the same.
  Template(std::string source, std::string tool_use, Names tokens)
      : source_(std::move(source)), tool_use_(std::move(tool_use)), tokens_(std::move(tokens)) {
    if (std::max(source_.size(), tool_use_.size()) > kMaxTemplateBytes) {
      throw Error(ErrorCode::kCorruption, "the chat template has more than 1 MiB");
    }
    body_ = jinja::ParseTemplate(source_);
    if (!tool_use_.empty()) tool_use_body_ = jinja::ParseTemplate(tool_use_);
  }

  std::string Render(std::span<const Message> messages, bool add_generation_prompt,
                     std::string_view columns_json) const override {
    std::vector<Value> list;
    list.reserve(messages.size());
    for (const Message& m : messages) list.push_back(ValueOf(m));
    // The same names that transformers' apply_chat_template gives: no tools and no documents are
    // none, not undefined.
    std::vector<std::pair<std::string, Value>> globals = {
        {"messages", Value::MakeList(std::move(list))},
        {"tools", Value::MakeNone()},
        {"documents", Value::MakeNone()},
        {"add_generation_prompt", Value::Bool(add_generation_prompt)}};
    for (const auto& [name, token] : tokens_) globals.emplace_back(name, Value::Text(token));
    const bool tools = AddColumns(columns_json, globals);
    return jinja::Render(tools && !tool_use_.empty() ? tool_use_body_ : body_, std::move(globals));
  }
  const std::string& source() const override { return source_; }

 private:
  const std::string source_, tool_use_;
  const Names tokens_;
  jinja::Body body_, tool_use_body_;
};

// `chat_template`: one text, or a list of {"name", "template"}. "" where the list has none of that
// name.
std::string TemplateText(const Json& value, const std::string& wanted) {
  if (value.is_string()) return wanted == "default" ? value.get<std::string>() : "";
  if (!value.is_array()) return "";
  for (const Json& entry : value) {
    if (entry.is_object() && entry.contains("name") && entry["name"] == wanted &&
        entry.contains("template") && entry["template"].is_string()) {
      return entry["template"].get<std::string>();
    }
  }
  return "";
}

}  // namespace

std::unique_ptr<ChatTemplate> ChatTemplate::LoadOrNull(const std::string& directory) {
  const std::string jinja_path = directory + "/chat_template.jinja",
                    config_path = directory + "/tokenizer_config.json";
  Json config = Json::object();
  if (RealFileSystem().Exists(config_path)) config = ReadStrictJson(config_path, kMaxConfigBytes);
  if (!config.is_object()) throw Error(ErrorCode::kCorruption, "is not a JSON object", config_path);
  const std::string tool_use_path = directory + "/additional_chat_templates/tool_use.jinja";
  std::string source, tool_use, where;
  if (RealFileSystem().Exists(jinja_path)) {
    source = RealFileSystem().ReadFile(jinja_path, kMaxTemplateBytes);
    if (RealFileSystem().Exists(tool_use_path)) {
      tool_use = RealFileSystem().ReadFile(tool_use_path, kMaxTemplateBytes);
    }
    where = jinja_path;
  } else if (config.contains("chat_template") && !config["chat_template"].is_null()) {
    const Json& named = config["chat_template"];
    source = TemplateText(named, "default");
    if (!named.is_string() && source.empty()) {
      throw Error(ErrorCode::kCorruption,
                  "'chat_template' is neither a text nor a list with one named \"default\"",
                  config_path);
    }
    tool_use = TemplateText(named, "tool_use");
    where = config_path;
  } else {
    return nullptr;
  }
  Names tokens;
  for (auto& [key, text] : ReadSpecialTokens(directory)) tokens.emplace_back(key, text);
  try {
    return std::make_unique<Template>(std::move(source), std::move(tool_use), std::move(tokens));
  } catch (const Error& e) {
    throw Error(e.code(), e.message(), where + (e.where().empty() ? "" : " (" + e.where() + ")"));
  }
}

std::unique_ptr<ChatTemplate> ChatTemplate::Parse(std::string source, std::string bos,
                                                  std::string eos) {
  Names tokens;
  if (!bos.empty()) tokens.emplace_back("bos_token", std::move(bos));
  if (!eos.empty()) tokens.emplace_back("eos_token", std::move(eos));
  return std::make_unique<Template>(std::move(source), "", std::move(tokens));
}

std::unique_ptr<ChatTemplate> ChatTemplate::BuiltIn(const std::string& name) {
  if (name == "chatml") {
    return Parse(
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
        "message['content'] + '<|im_end|>' + '\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        "<|im_start|>", "<|im_end|>");
  }
  if (name == "bytes") {
    return Parse(
        "{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '>' + "
        "message['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}",
        "<bos>", "<eos>");
  }
  throw Error(ErrorCode::kInvalidArgument,
              "there is no built-in chat template '" + name + "': use \"chatml\" or \"bytes\"");
}

}  // namespace plumb
