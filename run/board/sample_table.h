// Where in samples.jsonl the answers of a run stand, by step and by prompt.
//
// Purpose: the texts stay in the file and are read when somebody looks at them; what is kept is 40
// bytes an answer and the beginning of each prompt. Of a run with more answers than the bound the
// oldest are forgotten (left_out()).
// Thread safety: one thread. Errors: none: a line that is no answer with a step is counted and left
// out; answers that cannot be read back any more are missing from what is returned.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace plumb::run {

class SampleTable {
 public:
  static constexpr size_t kDefaultMaxAnswers = 400'000;

  explicit SampleTable(std::string path, size_t max_answers = kDefaultMaxAnswers);
  ~SampleTable();
  SampleTable(const SampleTable&) = delete;

  // Whole lines and where they begin. REQUIRES: LineTail::kPadding readable bytes behind them.
  void Append(std::string_view lines, uint64_t at);
  void Clear();

  size_t answers() const { return places_.size(); }
  int64_t left_out() const { return left_out_; }
  int64_t unreadable() const { return unreadable_; }

  // Steps that have answers, rising; the newest `most` of them.
  std::vector<int64_t> Steps(size_t most) const;
  struct PromptSeen {
    uint64_t prompt = 0;  // a hash of the text
    std::string begins;   // whole characters
    std::vector<int64_t> steps;
  };
  // Those with answers at the most steps first, then the newest.
  std::vector<PromptSeen> Prompts(size_t most) const;

  // Groups as the file has them: [{"step", "lease_id", "prompt_id", "prompt", "ground_truth",
  // "answers": [...]}], of a step, of a prompt, or of both; at most `most` answers.
  nlohmann::ordered_json Groups(std::optional<int64_t> step, std::optional<uint64_t> prompt,
                                size_t most) const;
  // The newest answer's line; null without one.
  nlohmann::ordered_json Newest() const;

 private:
  struct Place {
    int64_t step;
    int64_t lease;
    uint64_t prompt;
    uint64_t at;
    uint32_t bytes;
  };
  struct Parser;

  const std::string path_;
  const size_t max_answers_;
  std::unique_ptr<Parser> parser_;
  std::deque<Place> places_;
  std::map<uint64_t, std::string> begins_;  // of prompts
  int64_t left_out_ = 0, unreadable_ = 0;
};

}  // namespace plumb::run
