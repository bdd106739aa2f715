#include "run/models/conversation.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "actor/pages/kv_pages.h"
#include "common/base/error.h"
#include "common/base/json/strict_json.h"
#include "common/base/program_call.h"
#include "common/record/json_text.h"
#include "common/text/tokenizer/text_stream.h"
#include "reward/part/reward.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;
using SteadyClock = std::chrono::steady_clock;

constexpr int32_t kPageTokens = 16;

const ChatTemplate& TemplateOf(const ModelFolder& model) {
  if (model.chat_template) return *model.chat_template;
  throw Error(
      ErrorCode::kInvalidArgument,
      "this model has no chat template, so that nothing says how a conversation is written "
      "for it: `" +
          ProgramCall() + " generate " + model.path +
          " --raw --prompt TEXT` continues a text; a chat_template.jinja in the folder makes "
          "it talk",
      model.path);
}

// The columns that the template sees; refuses tools that it would not write.
std::string ColumnsOf(const ModelFolder& model, const std::string& tools_json) {
  const ChatTemplate& chat_template = TemplateOf(model);
  if (tools_json.empty()) return "";
  Json tools;
  try {
    tools = ParseStrictJson(tools_json);
  } catch (const Error& e) {
    throw Error(e.code(), e.message(), "--tools");
  }
  if (!tools.is_array() || tools.empty())
    throw Error(ErrorCode::kInvalidArgument, "is no list of tool definitions", "--tools");
  std::string columns = Json{{"tools", tools}}.dump();
  const Message hello{.role = "user", .content = "Hello"};
  if (chat_template.Render(std::span(&hello, 1), true, columns) ==
      chat_template.Render(std::span(&hello, 1), true)) {
    throw Error(ErrorCode::kInvalidArgument,
                "the model's chat template writes no tools: it would never see them", "--tools");
  }
  return columns;
}

// Tokens that fit: the model's positions, or what the memory for keys and values holds.
int64_t ContextOf(const ModelFolder& model, int64_t kv_mb) {
  const int64_t page = actor::KvPages::PageBytes(model.shape, model.dtype, kPageTokens);
  return std::min(model.shape.max_positions, (kv_mb << 20) / page * kPageTokens);
}

}  // namespace

Conversation::Conversation(const ModelFolder& model, const ConversationOptions& options)
    : model_(model),
      options_(options),
      columns_json_(ColumnsOf(model, options.tools_json)),
      context_(ContextOf(model, options.kv_mb)),
      engine_(model.shape, model.stream, model.dtype,
              {.max_batch = 1,
               .page_tokens = kPageTokens,
               .kv_budget_mb = options.kv_mb,
               .max_new_tokens = static_cast<int32_t>(options.max_new_tokens),
               .sampling = options.sampling,
               .stop = options.stop,
               .eos = model.shape.eos_tokens,
               .share_prefixes = true,
               .share_answers = true,
               .one_pool = true,
               .tasks = model.front.empty() ? 0 : 1,
               .task_tokens = static_cast<int32_t>(model.front.size())},
              model.tokenizer.get()) {
  SetSystem(options.system);
}

void Conversation::Reset() {
  const bool system = !messages_.empty() && messages_.front().role == "system";
  messages_.resize(system ? 1 : 0);
}

void Conversation::SetSystem(std::string system) {
  if (!messages_.empty() && messages_.front().role == "system") messages_.erase(messages_.begin());
  if (!system.empty())
    messages_.insert(messages_.begin(), {.role = "system", .content = std::move(system)});
}

std::string Conversation::MessagesJson() const {
  Prompt prompt;
  prompt.messages = messages_;
  Json out = {
      {"messages", messages_.empty() ? Json::array() : Json::parse(reward::PromptText(prompt))}};
  if (!columns_json_.empty()) out.update(Json::parse(columns_json_));
  return DumpJson(out);
}

std::vector<int32_t> Conversation::Encode(bool add_generation_prompt) const {
  std::vector<int32_t> tokens = model_.tokenizer->Encode(
      model_.chat_template->Render(messages_, add_generation_prompt, columns_json_));
  tokens.insert(tokens.begin(), model_.front.begin(), model_.front.end());
  return tokens;
}

int64_t Conversation::Tokens() const {
  return messages_.empty() ? 0 : static_cast<int64_t>(Encode(false).size());
}

Conversation::Answer Conversation::Say(const std::string& text,
                                       const std::function<void(const std::string&)>& show,
                                       const std::function<bool()>& stop) {
  Answer answer;
  const auto begin = SteadyClock::now();
  messages_.push_back({.role = "user", .content = text});
  actor::GenerateRequest request{.id = turns_, .num_samples = 1, .prompt_key = turns_};
  try {
    request.tokens = Encode(true);
    answer.prompt_tokens = static_cast<int64_t>(request.tokens.size());
    if (answer.prompt_tokens >= context_) {
      throw Error(ErrorCode::kInvalidArgument,
                  "the conversation has " + std::to_string(answer.prompt_tokens) +
                      " tokens with this message, and the context holds " +
                      std::to_string(context_) +
                      ": the message was not taken and nothing was cut. Say less, or begin anew",
                  "chat");
    }
  } catch (const Error&) {
    messages_.pop_back();
    throw;
  }
  ++turns_;
  const int64_t room = context_ - answer.prompt_tokens;
  request.limit = static_cast<int32_t>(std::min(options_.max_new_tokens, room));
  const uint64_t kept_before = engine_.counters().prefix_tokens_reused;
  engine_.Submit(std::move(request));
  TextStream stream(*model_.tokenizer);
  const auto more = [&](const std::string& piece) {
    answer.text += piece;
    if (!piece.empty()) show(piece);
  };
  while (!engine_.idle()) {
    if (stop()) {
      engine_.Abandon();
      answer.stopped = true;
      break;
    }
    engine_.Step(*model_.weights, 0);
    for (const actor::DrawnToken& token : engine_.last_drawn()) {
      ++answer.tokens;
      more(stream.Add(token.token));
    }
  }
  more(stream.End());
  for (const actor::GenerateResult& result : engine_.TakeFinished()) {
    const actor::GeneratedSample& sample = result.samples.front();
    answer.finish = sample.finish;
    if (sample.finish != FinishReason::kAborted) continue;
    messages_.pop_back();
    throw Error(ErrorCode::kNonFinite, sample.reason, model_.path);
  }
  answer.kept_tokens = static_cast<int64_t>(engine_.counters().prefix_tokens_reused - kept_before);
  answer.context_full =
      answer.finish == FinishReason::kLength && room <= options_.max_new_tokens && !answer.stopped;
  answer.seconds = std::chrono::duration<double>(SteadyClock::now() - begin).count();
  if (answer.tokens == 0) messages_.pop_back();  // stopped before it said anything
  else messages_.push_back({.role = "assistant", .content = answer.text});
  return answer;
}

}  // namespace plumb::run
