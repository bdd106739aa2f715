#include "common/text/template/transcript.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "common/base/error.h"

namespace plumb {
namespace {

// Stands for what the policy wrote; nothing that a template looks for.
constexpr char kMark[] = "plumb-turn-of-the-policy";

[[noreturn]] void LosesBeginning(const std::string& name, int turn, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument,
              "the chat template does not keep the beginning of a conversation: behind turn " +
                  std::to_string(turn) + " " + what +
                  ", so that the tokens of earlier turns would no longer be what the model was "
                  "asked with. Put a template that keeps them into the model folder "
                  "(chat_template.jinja), or set data.chat_template = false with prompts of text",
              name);
}

}  // namespace

Transcript::Transcript(const ChatTemplate* chat_template, std::vector<Message> prompt,
                       std::string columns_json)
    : template_(chat_template),
      columns_json_(std::move(columns_json)),
      messages_(std::move(prompt)) {}

std::string Transcript::Reply(std::span<const Message> reply, bool goes_on,
                              std::string_view drawn_end) {
  ++turns_;
  messages_.push_back({.role = "assistant", .content = kMark});
  const std::string before = template_->Render(messages_, false, columns_json_);
  const size_t mark = before.rfind(kMark);
  if (mark == std::string::npos)
    LosesBeginning("chat template", turns_, "it leaves out what the policy said");
  messages_.insert(messages_.end(), reply.begin(), reply.end());
  const std::string after = template_->Render(messages_, goes_on, columns_json_);
  if (!after.starts_with(before))
    LosesBeginning("chat template", turns_, "it writes what stands in front of the reply anew");
  std::string text = after.substr(mark + sizeof kMark - 1);
  if (!drawn_end.empty() && text.starts_with(drawn_end)) text.erase(0, drawn_end.size());
  return text;
}

void CheckKeepsBeginnings(const ChatTemplate& chat_template, const std::string& role,
                          const std::string& columns_json, const std::string& name) {
  const bool thinks = chat_template.source().find("</think>") != std::string::npos;
  std::vector<Message> messages = {{.role = "user", .content = "What is 12 + 30 + 5?"}};
  const auto render = [&](bool asks) {
    try {
      return chat_template.Render(messages, asks, columns_json);
    } catch (const Error& e) {
      throw Error(ErrorCode::kInvalidArgument,
                  "the chat template refuses a conversation in which the environment answers as "
                  "role '" +
                      role + "': " + e.message(),
                  name);
    }
  };
  std::string asked = render(true);
  for (int turn = 1; turn <= 3; ++turn) {
    const std::string number = std::to_string(turn);
    messages.push_back({.role = "assistant",
                        .content = (thinks ? "<think>\nthought " + number + "\n</think>\n\n" : "") +
                                   "said " + number});
    const std::string said = render(false);
    // Where the thought goes is the model's own; what it was asked with has to stand.
    if (!said.starts_with(asked)) LosesBeginning(name, turn, "it changes how the turn was opened");
    messages.push_back({.role = role, .content = "reply " + number});
    asked = render(true);
    if (!asked.starts_with(said))
      LosesBeginning(name, turn, "it writes what stands in front of the reply anew");
  }
}

std::string WithTools(const std::string& columns_json, const std::string& tools_json) {
  if (tools_json.empty()) return columns_json;
  nlohmann::ordered_json columns = nlohmann::ordered_json::object();
  if (!columns_json.empty()) {
    columns = nlohmann::ordered_json::parse(columns_json, nullptr, /*allow_exceptions=*/false);
    if (!columns.is_object()) return columns_json;  // the template says what is wrong with it
  }
  if (columns.contains("tools")) return columns_json;
  columns["tools"] = nlohmann::ordered_json::parse(tools_json, nullptr, false);
  if (columns["tools"].is_discarded())
    throw Error(ErrorCode::kInvalidArgument, "the environment's tools are no JSON array");
  return columns.dump();
}

}  // namespace plumb
