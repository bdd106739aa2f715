// Answers of a run as text for people: on the report's page and in TensorBoard.
//
// Purpose: entries of samples.jsonl that answer one prompt, shown beside each other, best first.
// What a model wrote never becomes markup. Thread safety: pure functions.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "run/report/run_data.h"

namespace plumb::run {

// The page's section; empty without samples.
std::string SamplesHtml(const RunData& data);

// Markdown: the prompt, then of these answers the best and the worst, with reward and parts.
std::string SamplesMarkdown(std::span<const nlohmann::ordered_json> answers);

}  // namespace plumb::run
