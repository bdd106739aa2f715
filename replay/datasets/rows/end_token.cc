#include "replay/datasets/rows/end_token.h"

#include <algorithm>
#include <array>

namespace plumb::replay {
namespace {

// Qwen and SmolLM; Llama 3; Llama 2 and Mistral; GPT-2 and base models; Phi; Gemma; DeepSeek;
// gpt-oss; Plumb's own vocabularies.
constexpr std::array<std::string_view, 12> kEnds = {
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "</s>",
    "<|end|>",
    "<end_of_turn>",
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
    "<|return|>",
    "<|END_OF_TURN_TOKEN|>",
    "<eos>"};

bool Cut(std::string& text, std::string_view end) {
  if (end.empty() || !text.ends_with(end)) return false;
  text.resize(text.size() - end.size());
  return true;
}

}  // namespace

bool CutEndToken(std::string& text, const std::vector<std::string>& more) {
  for (const std::string& end : more) {
    if (Cut(text, end)) return true;
  }
  for (const std::string_view end : kEnds) {
    if (Cut(text, end)) return true;
  }
  return false;
}

std::string Said(const Trajectory& answer, const std::vector<std::string>& more) {
  std::string text = answer.completion;
  if (answer.finish == FinishReason::kStop) CutEndToken(text, more);
  return text;
}

bool HasEnvironment(const Trajectory& answer) {
  return std::any_of(answer.segments.begin(), answer.segments.end(),
                     [](const Segment& s) { return s.origin == Origin::kEnvironment; });
}

}  // namespace plumb::replay
