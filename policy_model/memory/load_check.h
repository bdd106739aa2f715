// Whether a folder's files hold a model's tensors, without memory for them. Defined beside
// Weights::Load (weights.cc), whose rules these are.
//
// Thread safety: a pure function of the files. Errors: those of files that cannot be read.
#pragma once

#include <string>
#include <vector>

#include "policy_model/families/tensor_table.h"

namespace plumb::policy_model {

// Everything for which Weights::Load would refuse an HF directory's safetensors, a sentence each;
// empty: nothing.
std::vector<std::string> WhyNotLoadable(const TensorTable& table, const std::string& directory);

}  // namespace plumb::policy_model
