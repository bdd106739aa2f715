// Which layers of a Qwen mixture are dense: `decoder_sparse_step` and `mlp_only_layers`.
//
// Thread safety: a pure function of the config. Errors: kCorruption naming file and key.
#pragma once

#include <algorithm>

#include "policy_model/families/config_keys.h"
#include "policy_model/families/model_shape.h"

namespace plumb::policy_model {

// Fills ExpertsShape::dense [L], empty where no layer is dense; without experts all are.
inline void ReadSparseLayers(const ConfigKeys& keys, ModelShape& s) {
  ExpertsShape& e = s.experts;
  const int64_t every = keys.Int("decoder_sparse_step", 1);
  if (every < 1) keys.Fail("'decoder_sparse_step' is below 1");
  e.dense.clear();
  for (int64_t l = 0; l < s.layers; ++l)
    e.dense.push_back(e.count == 0 || (l + 1) % every != 0 ? 1 : 0);
  if (keys.Has("mlp_only_layers")) {
    const ConfigJson& list = keys.At("mlp_only_layers");
    if (!list.is_array()) keys.Fail("'mlp_only_layers' is not a list of layers");
    for (const ConfigJson& layer : list) {
      if (!layer.is_number_integer())
        keys.Fail("'mlp_only_layers' holds something else than layers");
      const auto l = layer.get<int64_t>();
      if (l >= 0 && l < s.layers) e.dense[static_cast<size_t>(l)] = 1;
    }
  }
  if (std::find(e.dense.begin(), e.dense.end(), 1) == e.dense.end()) e.dense.clear();
}

}  // namespace plumb::policy_model
