#include "reward/part/reward.h"

#include "common/record/json_text.h"
#include "reward/part/reply.h"

namespace plumb::reward {

std::string PromptText(const Prompt& prompt) {
  return prompt.messages.empty() ? prompt.text : DumpJson(PromptJson(prompt));
}

std::string_view StripEndTokens(std::string_view completion, bool spaces) {
  // What the tokenizers of the supported families write for end of sequence, end of turn and
  // padding.
  static constexpr std::string_view kEndTokens[] = {
      "<eos>",
      "</s>",
      "<|im_end|>",
      "<|endoftext|>",
      "<|eot_id|>",
      "<|end_of_text|>",
      "<|end|>",
      "<end_of_turn>",
      "<|eom_id|>",
      "<pad>",
      "[PAD]",
      "<|return|>",
      "<|assistant|>",
      "<|endofturn|>",
      "[EOS]",
      "<|end_of_sentence|>",
      "<\xEF\xBD\x9C"
      "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};
  for (bool again = true; again;) {
    again = false;
    while (spaces && !completion.empty() &&
           (completion.back() == ' ' || completion.back() == '\n' || completion.back() == '\r' ||
            completion.back() == '\t')) {
      completion.remove_suffix(1);
    }
    for (std::string_view token : kEndTokens) {
      if (completion.ends_with(token)) {
        completion.remove_suffix(token.size());
        again = true;
      }
    }
  }
  return completion;
}

}  // namespace plumb::reward
