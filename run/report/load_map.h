// How evenly experts were used, as a map: a row a layer, a column a bucket of steps, the colour the
// largest load over the mean one.
//
// Purpose: the heat map of the report, from the metrics moe/layer_N/expert_load_max_over_mean;
// plain SVG that needs no script. Thread safety: pure function.
#pragma once

#include <string>

#include "run/report/run_data.h"

namespace plumb::run {

// "" where the run's model has no experts.
std::string LoadMapHtml(const RunData& data);

}  // namespace plumb::run
