// Which conversation of an episode a call of its agent goes on with.
//
// Purpose: an agent sends every time all that was said so far. Where that begins with what a
// conversation has already, token by token, the call goes on with it, and only what stands behind
// is new. It begins so where
//   - the rendered and tokenized messages begin with the conversation's tokens, or their text does
//     (what was drawn may have other tokens than a tokenizer gives the same text), or
//   - the chat template keeps beginnings (common/text/template/transcript.h), and the messages are
//     those of the conversation, then the answer as the agent was given it (its tool calls by name
//     and arguments), then more. What stands behind is then the difference of two renderings.
// Anything else begins a conversation of its own: a sub-agent, a history that was shortened, an
// earlier message put otherwise. So does a call while the one before is still being answered.
// Thread safety: none; the caller's lock. Ownership: borrows tokenizer and template. Errors: what
// cannot be rendered or tokenized is the Error of who does it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"
#include "environment/calls/tool_call.h"

namespace plumb::run {

// What a call says, of either kind.
struct Said {
  bool chat = true;
  std::vector<Message> messages;
  std::string columns;          // as ChatTemplate::Render takes them: tools, chat_template_kwargs
  std::string text;             // of a completion, or
  std::vector<int32_t> tokens;  // its tokens
};

struct Place {
  uint32_t conversation = 0;
  bool begins = false;
  std::vector<int32_t> tokens = {};  // the prompt, or what stands behind the conversation
  std::vector<int32_t> prompt = {};  // the whole conversation with them
};

class PlacedConversations {
 public:
  // `keeps_beginnings`: what CheckKeepsBeginnings found of the template.
  PlacedConversations(const Tokenizer* tokenizer, const ChatTemplate* chat_template,
                      bool keeps_beginnings);

  // The conversation is busy from here on, until Answered or Dropped.
  Place Put(const Said& said);
  // What was drawn, and as what the agent has it.
  void Answered(uint32_t conversation, const std::vector<int32_t>& tokens,
                const environment::ParsedTurn& given);
  // It was not answered, or to nobody: no call goes on with it.
  void Dropped(uint32_t conversation);

 private:
  struct Entry {
    bool busy = true, dropped = false;
    Said said;  // of the newest call
    environment::ParsedTurn given;
    std::vector<int32_t> tokens;  // the answer included
    std::string text;
    std::string last;  // text of the special token that it ends with
  };

  // What stands behind the entry's tokens; nothing: it does not go on with it.
  std::optional<std::vector<int32_t>> Behind(const Entry& entry, const Said& said,
                                             const std::string& text,
                                             const std::vector<int32_t>& tokens) const;

  const Tokenizer* const tokenizer_;
  const ChatTemplate* const template_;
  const bool keeps_beginnings_;
  std::vector<Entry> entries_;  // by number
};

// Whether the message is the answer as it was given.
bool SameAnswer(const Message& message, const environment::ParsedTurn& given);

}  // namespace plumb::run
