#include "run/session/answer_text.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "replay/datasets/rows/dialogue.h"

namespace plumb::run {
namespace {

using plumb::ChatTemplate;

// Some characters of a text from `at` on, for messages.
std::string Shown(std::string_view text, size_t at) {
  constexpr size_t kBefore = 24, kBehind = 40;
  size_t begin = at > kBefore ? at - kBefore : 0, end = std::min(text.size(), at + kBehind);
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  std::string out;
  for (const char c : text.substr(begin, end - begin)) {
    if (c == '\n') out += "\\n";
    else out += c;
  }
  return "\"" + std::string(begin > 0 ? "..." : "") + out + (end < text.size() ? "..." : "") + "\"";
}

// What `whole` has behind `prompt`.
std::string_view Behind(std::string_view prompt, std::string_view whole, const std::string& where) {
  if (whole.starts_with(prompt)) return whole.substr(prompt.size());
  const auto differs = static_cast<size_t>(
      std::mismatch(prompt.begin(), prompt.end(), whole.begin(), whole.end()).first -
      prompt.begin());
  throw Error(ErrorCode::kUnsupported,
              "the chat template writes a prompt in another way once an answer follows: " +
                  Shown(prompt, differs) + " becomes " + Shown(whole, differs) +
                  ", so that what it writes for the answer cannot be told from the prompt. Put a " +
                  "chat_template.jinja into the model folder that leaves the prompt as it is",
              where);
}

// Would the same be written without what a message asks of tools?
bool DropsCalls(const ChatTemplate& chat_template, std::vector<Message> all, size_t at,
                std::string_view columns_json, const std::string& whole) {
  if (!replay::CallsTools(all[at])) return false;
  all[at].fields_json.clear();
  try {
    return chat_template.Render(all, false, columns_json) == whole;
  } catch (const Error&) {
    return false;  // without the call the template refuses the messages: it looks at it
  }
}

}  // namespace

Demonstration Joined(const std::vector<int32_t>& prompt, const std::vector<int32_t>& answer) {
  Demonstration out;
  out.tokens = prompt;
  out.tokens.insert(out.tokens.end(), answer.begin(), answer.end());
  out.loss_mask.assign(prompt.size(), 0);
  out.loss_mask.resize(out.tokens.size(), 1);
  return out;
}

std::optional<Demonstration> AnswerTokens(const Tokenizer& tokenizer,
                                          const ChatTemplate& chat_template,
                                          std::span<const Message> prompt,
                                          std::span<const Message> answer,
                                          std::string_view columns_json, const std::string& where) {
  std::vector<Message> all(prompt.begin(), prompt.end());
  all.insert(all.end(), answer.begin(), answer.end());
  const auto render = [&](std::span<const Message> messages, bool add_generation_prompt) {
    try {
      return chat_template.Render(messages, add_generation_prompt, columns_json);
    } catch (const Error& e) {  // the template's own refusal: of which row
      throw Error(e.code(), e.message(), where + (e.where().empty() ? "" : " (" + e.where() + ")"));
    }
  };
  const std::string before = render(prompt, true);
  const std::string whole = render(all, false);
  const std::string_view behind = Behind(before, whole, where);
  for (size_t i = prompt.size(); i < all.size(); ++i) {
    if (DropsCalls(chat_template, all, i, columns_json, whole)) return std::nullopt;
  }
  if (std::all_of(answer.begin(), answer.end(), replay::IsLearned))
    return Joined(tokenizer.Encode(before), tokenizer.Encode(behind));
  // Message by message, each what it adds to the text of those before it.
  Demonstration out = Joined(tokenizer.Encode(before), {});
  std::string so_far = before;
  for (size_t i = 0; i < answer.size(); ++i) {
    const bool last = i + 1 == answer.size();
    const std::string next =
        last ? whole : render(std::span<const Message>(all).first(prompt.size() + i + 1), false);
    const std::vector<int32_t> tokens = tokenizer.Encode(Behind(so_far, next, where));
    out.tokens.insert(out.tokens.end(), tokens.begin(), tokens.end());
    out.loss_mask.resize(out.tokens.size(), replay::IsLearned(answer[i]) ? 1 : 0);
    so_far = next;
  }
  return out;
}

}  // namespace plumb::run
