// The curves that a run is shown by, as specs for charts.js.
//
// Purpose: which metrics stand first, for each kind of training, and beside what: training and
// held-out values of one quantity share an axis, quantities of other sizes do not. What
// docs/metrics.md says to look at first is here. A curve of very many steps is given in buckets of
// equal numbers of steps: mean, least and most of each. Thread safety: pure function.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "run/report/run_data.h"

namespace plumb::run {

struct RunCharts {
  static constexpr size_t kBuckets = 500;  // of one curve; a chart has about 400 columns

  nlohmann::ordered_json specs;    // an array, in the order of the page
  std::vector<std::string> quiet;  // signs of trouble that were 0 in every step: no chart
  size_t steps_a_bucket = 0;       // of the longest curve; 0: every step is there
};

RunCharts ChartsOf(const RunData& data);

// Held-out accuracy's standard error from what an evaluation wrote.
double AccuracyError(const nlohmann::ordered_json& evaluation);

}  // namespace plumb::run
