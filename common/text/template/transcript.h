// A conversation that grows: what a chat template puts between a policy's turn and its next one.
//
// Purpose: the tokens of a conversation are never rendered and tokenized anew, for a text that was
// drawn token by token may have other tokens than the same text has from a tokenizer. So only the
// difference of two renderings is taken: with and without what came behind the turn. That is right
// where the template keeps beginnings: what it makes of the first k messages is the beginning of
// what it makes of k + 1. CheckKeepsBeginnings tries it, and each reply is checked besides.
// The policy's own words are rendered as a mark: a template that trims or cuts them changes nothing
// of what stands in the tokens.
// Thread safety: none (one conversation, one thread); the functions are pure. Ownership: borrows
// the template. Errors: kInvalidArgument names the template and the turn.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/record/trajectory.h"
#include "common/text/template/chat_template.h"

namespace plumb {

class Transcript {
 public:
  // `columns_json`: as ChatTemplate::Render takes it.
  Transcript(const ChatTemplate* chat_template, std::vector<Message> prompt,
             std::string columns_json);

  // The policy's turn has ended and `reply` was said; the text behind the turn's tokens.
  // `goes_on`: with what opens the policy's next turn. `drawn_end`: the text of the end token that
  // the turn's tokens end with, which does not stand there twice; "": they end with none.
  std::string Reply(std::span<const Message> reply, bool goes_on, std::string_view drawn_end);

 private:
  const ChatTemplate* const template_;
  const std::string columns_json_;
  std::vector<Message> messages_;
  int turns_ = 0;
};

// Three turns of a conversation in which replies have this role, with thoughts in <think> where the
// template speaks of them. `name`: of the template, for the error.
void CheckKeepsBeginnings(const ChatTemplate& chat_template, const std::string& role,
                          const std::string& columns_json, const std::string& name);

// The row's columns with these tools (a JSON array, "": none) where it names none of its own.
std::string WithTools(const std::string& columns_json, const std::string& tools_json);

}  // namespace plumb
