// run.parallel: how many learner processes (ranks) a run has, and how they share the work.
//
// "dp=4,tp=2": factors by name, each once; their product is the number of ranks.
//   dp  data parallel: every rank has the model and a share of each batch
//   tp  tensor parallel: neighbours on one machine compute each layer together, a share each
//   pp  pipeline parallel: ranks have neighbouring layers each, and pass micro-batches on
//   ep  expert parallel: neighbours share out the experts of each layer, and batches as under dp
// Thread safety: pure functions. Errors: kInvalidArgument for a text of another form, kUnsupported
// for a factor that this version does not compute.
#pragma once

#include <cstdint>
#include <string>

#include "configs/config.h"

namespace plumb::configs {

struct Parallel {
  int64_t dp = 1, tp = 1, pp = 1, ep = 1;
  int64_t ranks() const { return dp * tp * pp * ep; }
  int64_t sharing_batches() const { return dp * ep; }
  bool operator==(const Parallel&) const = default;
};

// An empty text: one rank.
Parallel ReadParallel(const std::string& text);

// Throws for what several ranks cannot do, whatever they train. `ranks`: as many as there will be,
// which the environment may say where run.parallel does not.
void CheckParallel(const Config& config, int64_t ranks);

}  // namespace plumb::configs
