#include "run/serve/answer_request.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "common/base/json/strict_json.h"
#include "replay/datasets/rows/row_parser.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void Refuse(const std::string& field, const std::string& why) {
  throw ApiError{.status = 400, .message = "'" + field + "' " + why, .param = field, .code = ""};
}

// The fields of a body, each asked for by its name; whoever is left over is refused.
class Fields {
 public:
  explicit Fields(std::string_view body) {
    try {
      body_ = ParseStrictJson(body, "the request's body");
    } catch (const Error& e) {
      throw ApiError{.status = 400, .message = e.what(), .param = "", .code = "bad_json"};
    }
    if (!body_.is_object())
      throw ApiError{400, "the request's body is no JSON object", "", "bad_json"};
  }

  const Json* Find(const std::string& name) {
    known_.insert(name);
    const auto at = body_.find(name);
    return at == body_.end() || at->is_null() ? nullptr : &*at;
  }
  bool Flag(const std::string& name) {
    const Json* value = Find(name);
    if (value != nullptr && !value->is_boolean()) Refuse(name, "has to be true or false");
    return value != nullptr && value->get<bool>();
  }
  std::optional<std::string> Text(const std::string& name) {
    const Json* value = Find(name);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) Refuse(name, "has to be a text");
    return value->get<std::string>();
  }
  std::optional<int64_t> Whole(const std::string& name, int64_t least, int64_t most) {
    const Json* value = Find(name);
    if (value == nullptr) return std::nullopt;
    const bool beyond =
        value->is_number_unsigned() && value->get<uint64_t>() > std::numeric_limits<int64_t>::max();
    if (!value->is_number_integer() || beyond || value->get<int64_t>() < least ||
        value->get<int64_t>() > most) {
      Refuse(name, "has to be a whole number from " + std::to_string(least) + " to " +
                       std::to_string(most));
    }
    return value->get<int64_t>();
  }
  std::optional<double> Number(const std::string& name, double least, double most) {
    const Json* value = Find(name);
    if (value == nullptr) return std::nullopt;
    // written so that NaN is refused, too
    if (!value->is_number() || !(value->get<double>() >= least && value->get<double>() <= most)) {
      char range[64];
      std::snprintf(range, sizeof range, "%g to %g", least, most);
      Refuse(name, std::string("has to be a number from ") + range);
    }
    return value->get<double>();
  }
  // Takes a field only with a value that asks for nothing.
  void Only(const std::string& name, const Json& nothing, const std::string& why) {
    const Json* value = Find(name);
    if (value != nullptr && *value != nothing) Refuse(name, why);
  }
  void PassOver(std::initializer_list<const char*> names) {
    for (const char* name : names) known_.insert(name);
  }
  void End() const {
    for (const auto& [name, value] : body_.items()) {
      if (!known_.contains(name) && !value.is_null())
        Refuse(name, "is not known here: leave it out (docs/serve.md lists what is taken)");
    }
  }

 private:
  Json body_;
  std::set<std::string> known_;
};

std::vector<std::string> ReadStop(Fields& fields) {
  const Json* value = fields.Find("stop");
  if (value == nullptr) return {};
  std::vector<std::string> stop;
  if (value->is_string()) {
    stop.push_back(value->get<std::string>());
  } else if (value->is_array()) {
    for (const Json& text : *value) {
      if (!text.is_string()) Refuse("stop", "has to be a text or a list of texts");
      stop.push_back(text.get<std::string>());
    }
  } else {
    Refuse("stop", "has to be a text or a list of texts");
  }
  if (stop.size() > AnswerRequest::kMostStops)
    Refuse("stop", "has more than " + std::to_string(AnswerRequest::kMostStops) + " texts");
  for (const std::string& text : stop) {
    if (text.empty()) Refuse("stop", "holds an empty text, which every answer begins with");
    if (text.size() > AnswerRequest::kMostStopBytes)
      Refuse("stop", "holds a text of more than " + std::to_string(AnswerRequest::kMostStopBytes) +
                         " bytes");
  }
  return stop;
}

// What both endpoints take.
void ReadShared(Fields& fields, AnswerRequest& out) {
  out.model = fields.Text("model").value_or("");
  out.n = fields.Whole("n", 1, AnswerRequest::kMostAnswers).value_or(1);
  out.temperature = fields.Number("temperature", 0, 100);
  out.top_p = fields.Number("top_p", 0, 1);
  if (out.top_p == 0) Refuse("top_p", "is 0, which leaves no token; \"temperature\": 0 is greedy");
  out.min_p = fields.Number("min_p", 0, 1);
  // -1 is vLLM's word for none
  out.top_k = fields.Whole("top_k", -1, std::numeric_limits<int32_t>::max());
  if (out.top_k == -1) out.top_k = 0;
  if (const auto seed = fields.Whole("seed", std::numeric_limits<int64_t>::min(),
                                     std::numeric_limits<int64_t>::max()))
    out.seed = static_cast<uint64_t>(*seed);
  out.stop = ReadStop(fields);
  out.stream = fields.Flag("stream");
  if (const Json* options = fields.Find("stream_options")) {
    if (!options->is_object()) Refuse("stream_options", "has to be an object");
    for (const auto& [name, value] : options->items()) {
      if (name != "include_usage" || !value.is_boolean())
        Refuse("stream_options", "takes \"include_usage\": true or false, nothing else");
      out.include_usage = value.get<bool>();
    }
    if (!out.stream) Refuse("stream_options", "is for \"stream\": true");
  }
  out.token_ids = fields.Flag("return_token_ids");
  fields.Only("frequency_penalty", 0, "is not done here: only 0 is taken");
  fields.Only("presence_penalty", 0, "is not done here: only 0 is taken");
  fields.Only("repetition_penalty", 1, "is not done here: only 1 is taken");
  fields.Only("logit_bias", Json::object(), "is not done here");
  // They say nothing about the answer.
  fields.PassOver(
      {"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"});
}

bool IsTokens(const Json& value) {
  if (!value.is_array() || value.empty()) return false;
  for (const Json& token : value) {
    if (!token.is_number_integer()) return false;
  }
  return true;
}

AnswerRequest::Text ReadText(const Json& value) {
  if (value.is_string()) return {.text = value.get<std::string>(), .tokens = {}};
  if (!IsTokens(value))
    Refuse("prompt", "has to be a text, a list of token ids, or a list of these");
  AnswerRequest::Text out;
  for (const Json& token : value) {
    const bool fits =
        token.is_number_unsigned() && token.get<uint64_t>() <= std::numeric_limits<int32_t>::max();
    if (!fits) Refuse("prompt", "holds the token id " + token.dump() + ", which no model has");
    out.tokens.push_back(token.get<int32_t>());
  }
  return out;
}

// A content of text parts becomes their lines, as other servers have it: most templates would write
// a list as a list. Parts of other kinds stay, for the reader of rows to refuse.
void JoinParts(Json& message) {
  if (!message.is_object() || !message.contains("content") || !message["content"].is_array())
    return;
  std::string text;
  for (const Json& part : message["content"]) {
    const bool plain = part.is_object() && part.value("type", Json()) == "text" &&
                       part.value("text", Json()).is_string();
    if (!plain) return;
    text += (text.empty() ? "" : "\n") + part["text"].get<std::string>();
  }
  message["content"] = text;
}

// Messages, tools and template options, as a dataset's row has them.
Prompt ReadConversation(Fields& fields, bool* tools) {
  const Json* messages = fields.Find("messages");
  if (messages == nullptr || !messages->is_array() || messages->empty())
    Refuse("messages", "has to be a list of at least one message");
  Json row = {{"messages", *messages}};
  for (Json& message : row["messages"]) JoinParts(message);
  const Json* list = fields.Find("tools");
  if (list != nullptr && !list->is_array()) Refuse("tools", "has to be a list of definitions");
  const std::string choice = fields.Find("tool_choice") == nullptr ? "auto"
                             : fields.Find("tool_choice")->is_string()
                                 ? fields.Find("tool_choice")->get<std::string>()
                                 : "";
  if (choice != "auto" && choice != "none")
    Refuse("tool_choice", "has to be auto or none: nothing here makes a model call a tool");
  *tools = list != nullptr && !list->empty() && choice == "auto";
  if (*tools) row["tools"] = *list;
  if (const Json* kwargs = fields.Find("chat_template_kwargs")) {
    if (!kwargs->is_object()) Refuse("chat_template_kwargs", "has to be an object");
    row["chat_template_kwargs"] = *kwargs;
  }
  replay::RowParserOptions options{.map = {{"prompt", "messages"}},
                                   .form = {},
                                   .convert_numbers = false,
                                   .as = replay::RowKind::kPrompts};
  std::string text = row.dump();
  text.append(64, ' ');  // the parser looks ahead
  try {
    Prompt prompt = replay::RowParser(options).Parse(text).prompt;
    // A single user's message may come back as a text; the template takes messages.
    if (prompt.messages.empty())
      prompt.messages = {{.role = "user", .content = std::exchange(prompt.text, {})}};
    return prompt;
  } catch (const replay::RowProblem& problem) {
    Refuse("messages", "cannot be used: " + problem.detail);
  }
}

}  // namespace

AnswerRequest ReadCompletionRequest(std::string_view body) {
  Fields fields(body);
  AnswerRequest out;
  ReadShared(fields, out);
  const Json* prompt = fields.Find("prompt");
  if (prompt == nullptr) Refuse("prompt", "is missing");
  if (prompt->is_array() && !prompt->empty() && !IsTokens(*prompt)) {
    for (const Json& each : *prompt) out.texts.push_back(ReadText(each));
  } else {
    out.texts.push_back(ReadText(*prompt));
  }
  if (static_cast<int64_t>(out.texts.size()) * out.n > AnswerRequest::kMostAnswers) {
    Refuse("prompt", "and 'n' ask for " + std::to_string(out.texts.size()) + " x " +
                         std::to_string(out.n) + " answers; at most " +
                         std::to_string(AnswerRequest::kMostAnswers) + " a request");
  }
  out.max_tokens = fields.Whole("max_tokens", 1, std::numeric_limits<int32_t>::max()).value_or(16);
  out.logprobs = fields.Find("logprobs") != nullptr;
  fields.Only("logprobs", 0, "has to be 0: only the tokens drawn have a log-prob here");
  fields.Only("echo", false, "is not done here: only false is taken");
  fields.Only("best_of", out.n, "has to be n: all answers are given");
  fields.Only("suffix", "", "is not done here");
  fields.End();
  return out;
}

AnswerRequest ReadChatRequest(std::string_view body) {
  Fields fields(body);
  AnswerRequest out;
  out.chat = true;
  ReadShared(fields, out);
  out.conversation = ReadConversation(fields, &out.tools);
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  const auto old_name = fields.Whole("max_tokens", 1, kMost);
  out.max_tokens = fields.Whole("max_completion_tokens", 1, kMost);
  if (out.max_tokens && old_name && *out.max_tokens != *old_name)
    Refuse("max_tokens", "and 'max_completion_tokens' say different numbers");
  if (!out.max_tokens) out.max_tokens = old_name;
  out.logprobs = fields.Flag("logprobs");
  fields.Only("top_logprobs", 0, "has to be 0: only the tokens drawn have a log-prob here");
  fields.Only("response_format", Json{{"type", "text"}}, "is not done here, but for text");
  fields.Only("modalities", Json::array({"text"}), "is not done here, but for text");
  fields.PassOver({"parallel_tool_calls"});  // whatever is called stays in the text
  fields.End();
  return out;
}

TokenizeRequest ReadTokenizeRequest(std::string_view body) {
  Fields fields(body);
  TokenizeRequest out;
  out.model = fields.Text("model").value_or("");
  out.text = fields.Text("prompt");
  if (out.text) {
    const Json* add = fields.Find("add_special_tokens");
    out.add_special = add == nullptr || fields.Flag("add_special_tokens");
  } else {
    if (fields.Find("messages") == nullptr) Refuse("prompt", "is missing, and so is 'messages'");
    bool tools = false;
    out.conversation = ReadConversation(fields, &tools);
  }
  fields.End();
  return out;
}

}  // namespace plumb::run
