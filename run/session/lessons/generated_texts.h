// The rows that data.train or data.eval = "tiny_texts" stand for, of one recipe.
//
// Thread safety: pure functions. Errors: those of replay/datasets/rows/tiny_texts.h.
#pragma once

#include "configs/config.h"
#include "replay/datasets/rows/tiny_texts.h"
#include "run/session/offline_source.h"

namespace plumb::run {

// Of training without rollouts: `heldout` of its recipe's section.
inline replay::TinyTextOptions TinyTextsOf(const configs::Config& config, int64_t heldout) {
  const int64_t rows = config.data.limit > 0 ? config.data.limit : replay::kTinyTextRows;
  return {.seed = config.run.seed,
          .rows = rows,
          .heldout = static_cast<int64_t>(HeldOutRows(heldout, static_cast<size_t>(rows)))};
}

}  // namespace plumb::run
