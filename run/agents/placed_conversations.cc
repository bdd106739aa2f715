#include "run/agents/placed_conversations.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "common/base/error.h"
#include "common/text/template/transcript.h"

namespace plumb::run {
namespace {

using Json = nlohmann::json;

bool Begins(const std::vector<int32_t>& whole, const std::vector<int32_t>& beginning) {
  return whole.size() > beginning.size() &&
         std::equal(beginning.begin(), beginning.end(), whole.begin());
}

// Arguments come as a text that holds JSON, or as an object.
Json ArgumentsOf(const Json& call) {
  const Json function = call.value("function", Json::object());
  if (!function.is_object() || !function.contains("arguments")) return Json::object();
  const Json& arguments = function["arguments"];
  if (!arguments.is_string()) return arguments;
  return Json::parse(arguments.get<std::string>(), nullptr, /*allow_exceptions=*/false);
}

}  // namespace

bool SameAnswer(const Message& message, const environment::ParsedTurn& given) {
  if (message.role != "assistant" || message.content != given.content) return false;
  const Json fields = message.fields_json.empty()
                          ? Json::object()
                          : Json::parse(message.fields_json, nullptr, /*allow_exceptions=*/false);
  if (!fields.is_object()) return false;
  const Json calls = fields.value("tool_calls", Json::array());
  if (!calls.is_array() || calls.size() != given.calls.size()) return false;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (!calls[i].is_object()) return false;
    const Json function = calls[i].value("function", Json::object());
    const Json ours = Json::parse(given.calls[i].arguments, nullptr, /*allow_exceptions=*/false);
    if (!function.is_object() || function.value("name", Json()) != Json(given.calls[i].name) ||
        ArgumentsOf(calls[i]) != ours)
      return false;
  }
  return true;
}

PlacedConversations::PlacedConversations(const Tokenizer* tokenizer,
                                         const ChatTemplate* chat_template, bool keeps_beginnings)
    : tokenizer_(tokenizer), template_(chat_template), keeps_beginnings_(keeps_beginnings) {}

std::optional<std::vector<int32_t>> PlacedConversations::Behind(
    const Entry& entry, const Said& said, const std::string& text,
    const std::vector<int32_t>& tokens) const {
  if (entry.busy || entry.dropped || entry.said.chat != said.chat) return std::nullopt;
  if (Begins(tokens, entry.tokens)) {
    return std::vector<int32_t>(tokens.begin() + static_cast<ptrdiff_t>(entry.tokens.size()),
                                tokens.end());
  }
  if (text.size() > entry.text.size() && text.starts_with(entry.text))
    return tokenizer_->Encode(text.substr(entry.text.size()));
  const std::vector<Message>&was = entry.said.messages, &is = said.messages;
  const bool same = said.chat && keeps_beginnings_ && entry.said.columns == said.columns &&
                    is.size() > was.size() + 1 && std::equal(was.begin(), was.end(), is.begin()) &&
                    SameAnswer(is[was.size()], entry.given);
  if (!same) return std::nullopt;
  try {
    Transcript transcript(template_, was, said.columns);
    const std::string behind = transcript.Reply(std::span(is).subspan(was.size() + 1),
                                                /*goes_on=*/true, entry.last);
    return tokenizer_->Encode(behind);
  } catch (const Error&) {
    return std::nullopt;  // it writes these messages in a way that cannot be told apart
  }
}

Place PlacedConversations::Put(const Said& said) {
  std::string text = said.text;
  std::vector<int32_t> tokens = said.tokens;
  if (said.chat) text = template_->Render(said.messages, true, said.columns);
  if (tokens.empty()) tokens = tokenizer_->Encode(text);
  else if (!said.chat) text = tokenizer_->Decode(tokens, /*skip_special=*/false);
  Place place{.conversation = static_cast<uint32_t>(entries_.size()), .begins = true};
  size_t longest = 0;  // is gone on with
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (entry.tokens.size() < longest) continue;
    auto behind = Behind(entry, said, text, tokens);
    if (!behind || behind->empty()) continue;
    longest = entry.tokens.size();
    place = {
        .conversation = static_cast<uint32_t>(i), .begins = false, .tokens = std::move(*behind)};
  }
  if (place.begins) {
    place.tokens = std::move(tokens);
    entries_.emplace_back();
  }
  Entry& entry = entries_[place.conversation];
  entry.busy = true;
  entry.said = said;
  entry.tokens.insert(entry.tokens.end(), place.tokens.begin(), place.tokens.end());
  place.prompt = entry.tokens;
  return place;
}

void PlacedConversations::Answered(uint32_t conversation, const std::vector<int32_t>& tokens,
                                   const environment::ParsedTurn& given) {
  Entry& entry = entries_.at(conversation);
  entry.busy = false;
  entry.given = given;
  entry.tokens.insert(entry.tokens.end(), tokens.begin(), tokens.end());
  entry.text = tokenizer_->Decode(entry.tokens, /*skip_special=*/false);
  const bool ends = !tokens.empty() && tokenizer_->IsSpecial(tokens.back());
  entry.last = ends ? tokenizer_->TokenBytes(tokens.back()) : "";
}

void PlacedConversations::Dropped(uint32_t conversation) {
  entries_.at(conversation).busy = false;
  entries_.at(conversation).dropped = true;
}

}  // namespace plumb::run
