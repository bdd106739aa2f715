// One self-contained HTML page of a run: curves, samples, the resolved recipe.
//
// Reads metrics.jsonl, samples.jsonl, summary.json and config.toml of the run folder; what is
// missing is left out and said. The page has no outside resource. Thread safety: pure function of
// the folder. Errors: kNotFound when the folder is no run; kIo / kNoSpace when the page cannot be
// written.
#pragma once

#include <string>

namespace plumb::run {

void WriteReport(const std::string& run_folder, const std::string& output_html);

}  // namespace plumb::run
