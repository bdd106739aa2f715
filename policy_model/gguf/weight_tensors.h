// The weights of a GGUF file under the names and in the layout of a model folder.
//
// Thread safety: pure functions; what they return borrows the reader and the shape's names. Errors:
// kCorruption for a tensor that is missing or of another shape, kUnsupported for one left over or
// that GGUF has no name for.
#pragma once

#include <vector>

#include "policy_model/files/gguf_reader.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/gguf/shape_keys.h"

namespace plumb::policy_model {

// Every tensor of `shape`'s table, to be filled with the file's values as `dtype` (float32 or
// bfloat16): rows of q and k in the order of heads' halves, norms as the family stores them. Every
// tensor of the file is one of them or holds frequencies (shape_keys.h).
std::vector<TensorToWrite> WeightTensors(const GgufReader& in, const ModelShape& shape,
                                         const GgufArchitecture& arch, DType dtype);

}  // namespace plumb::policy_model
