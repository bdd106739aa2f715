// A talk with a model: messages in, answers out, through the model's chat template.
//
// Purpose: what `plumb chat` keeps between turns. Every turn the whole conversation is rendered and
// tokenized as the model was taught; the engine keeps the keys and values of what it has in common
// with the turn before, so that a turn costs its new tokens. Nothing is ever cut out of the
// history: a conversation that no longer fits is an error, and stays as it was.
// Thread safety: one thread. Ownership: borrows the model.
// Errors: kInvalidArgument for a model without a chat template, tools that the template does not
// show, a conversation beyond the context; what the template refuses; kNonFinite.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "actor/engine.h"
#include "run/session/model_folder.h"

namespace plumb::run {

struct ConversationOptions {
  std::string system;      // "": none
  std::string tools_json;  // a list of tool definitions as JSON; "": none
  int64_t max_new_tokens = 512;
  kernels::SamplingOptions sampling;
  std::vector<std::string> stop;
  int64_t kv_mb = 2048;  // MiB of keys and values; bounds the context
};

class Conversation {
 public:
  Conversation(const ModelFolder& model, const ConversationOptions& options);

  struct Answer {
    std::string text;  // valid UTF-8, without special tokens
    FinishReason finish = FinishReason::kStop;
    bool stopped = false;       // by `stop`; without any token the turn is taken back
    bool context_full = false;  // cut at the context's end, not at max_new_tokens
    int64_t tokens = 0;         // drawn
    int64_t prompt_tokens = 0, kept_tokens = 0;  // of the whole prompt; of it, computed before
    double seconds = 0;
  };
  // One turn. `show` gets the answer's text piece by piece, in whole characters; `stop` is asked
  // between tokens.
  Answer Say(const std::string& text, const std::function<void(const std::string&)>& show,
             const std::function<bool()>& stop);

  void Reset();                        // forgets all turns; the system message stays
  void SetSystem(std::string system);  // from the next turn on; "": none
  const std::vector<Message>& messages() const { return messages_; }
  std::string MessagesJson() const;             // {"messages": [...], "tools": [...]}, one line
  int64_t Tokens() const;                       // of all that was said so far
  int64_t context() const { return context_; }  // tokens that fit

 private:
  std::vector<int32_t> Encode(bool add_generation_prompt) const;

  const ModelFolder& model_;
  const ConversationOptions options_;
  const std::string columns_json_;
  const int64_t context_;
  std::vector<Message> messages_;
  actor::Engine engine_;
  uint64_t turns_ = 0;
};

}  // namespace plumb::run
