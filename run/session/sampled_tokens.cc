#include "run/session/sampled_tokens.h"

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/record/task_tokens.h"
#include "common/text/unicode.h"
#include "run/session/answer_text.h"

namespace plumb::run {
namespace {

// Whether the tokens spell the text, with or without the end token that was sampled last.
bool Spell(const Tokenizer& tokenizer, std::span<const int32_t> tokens, std::string text) {
  RepairUtf8(text);
  for (const size_t without : {size_t{0}, size_t{1}}) {
    if (tokens.size() < without) break;
    std::string said = tokenizer.Decode(tokens.first(tokens.size() - without));
    RepairUtf8(said);
    if (said == text) return true;
  }
  return false;
}

}  // namespace

Demonstration SampledTokens(const PromptEncoder& encoder, const PreferenceRecord& record,
                            bool chosen) {
  const auto& unused = encoder.shape.unused_tokens;
  const std::vector<int32_t>& answer = chosen ? record.chosen_tokens : record.rejected_tokens;
  const std::string where = "row " + std::to_string(record.row);
  // Those of a task belong to the run that sampled it.
  const auto prompt =
      std::span(record.prompt_tokens).subspan(LeadingTaskTokens(record.prompt_tokens));
  for (const auto tokens : {prompt, std::span(answer)}) {
    for (const int32_t id : tokens) {
      if (id >= 0 && id < encoder.shape.vocab &&
          !std::binary_search(unused.begin(), unused.end(), id))
        continue;
      throw Error(ErrorCode::kInvalidArgument,
                  "the row was sampled with another tokenizer: token " + std::to_string(id) +
                      " is none of this model's " + std::to_string(encoder.shape.vocab) +
                      " (`plumb data export --no-tokens` writes the texts alone, for any model)",
                  where);
    }
  }
  const std::vector<Message>& messages = chosen ? record.chosen : record.rejected;
  if (messages.size() == 1 && !Spell(encoder.tokenizer, answer, messages.front().content)) {
    throw Error(ErrorCode::kInvalidArgument,
                "the row's tokens do not spell its answer: it was sampled with another tokenizer, "
                "or its text was changed since. Without the column plumb_tokens (`plumb data "
                "export --no-tokens`) the text is what counts",
                where);
  }
  return Joined({prompt.begin(), prompt.end()}, answer);
}

}  // namespace plumb::run
