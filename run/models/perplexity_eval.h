// How expected texts are to a language model: nats a token, perplexity, bits a byte.
//
// Purpose: `plumb eval --perplexity`. Of a row of bare text, or a .txt or .md file as a whole,
// every token but the first counts; a longer text than the context is cut into pieces that begin
// without context, which makes it look less expected than it is. Of demonstrations the answer
// counts, given its prompt through the chat template, end token included, as training learns it;
// one longer than the context is left out and counted. Bits a byte compare models of different
// tokenizers.
// Thread safety: one thread. Errors: those of files and models; kInvalidArgument where nothing is
// left to score, kNonFinite for log-probs that are no numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "run/models/answer_stats.h"
#include "run/session/model_folder.h"

namespace plumb::run {

struct PerplexityOptions {
  std::string file;
  std::map<std::string, std::string> map;
  int64_t limit = 0;  // rows; 0: all
  bool raw = false;   // demonstrations without the chat template
  int64_t batch_tokens = 4096;
};

struct PerplexityRow {
  int64_t row = 0;  // from 0, of those used
  double nats = 0;  // summed
  int64_t tokens = 0, bytes = 0;
};

struct PerplexityReport {
  std::string ledger;
  std::vector<PerplexityRow> rows;
  int64_t cut = 0;  // texts in several pieces
  // beyond the context, with calls the template drops, or not taken by tokenizer or template
  int64_t left_out = 0;
  std::string first_left_out;  // row and reason, of those and of the rows that were rejected
  bool stopped = false;

  Estimate NatsPerToken() const;
  double BitsPerByte() const;
  nlohmann::ordered_json Json() const;
  std::string Text() const;
};

// `progress` is told how many of how many rows are scored, and says whether to go on.
PerplexityReport EvaluatePerplexity(const ModelFolder& model, const PerplexityOptions& options,
                                    const std::function<bool(int64_t done, int64_t all)>& progress);

}  // namespace plumb::run
