// A table of keys and values that layers attend to besides their tokens (`model.memory_table`): a
// safetensors file with `keys` and `values`, [N, D] each, D the model's head size, N at most a
// million; float32, bfloat16 or float16. It is not trained; its digest stands in config.json.
//
// Thread safety: const; the cache of KeyTableOf has a lock. Ownership: all models of a process that
// name the same file share one table, which goes with the last of them. Errors: kNotFound where the
// file is not there, kCorruption for tensors that are missing, of another shape or not finite,
// kConflict for a file that is another than the model was trained with.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "policy_model/families/model_shape.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {

struct KeyTable {
  std::vector<float> keys, values;  // [N, D]
};

// What a new model's shape says of the file at `path`, all of which is read and checked.
KeyTableShape DescribeKeyTable(const std::string& path, int64_t head_dim);
// REQUIRES: shape.table.there().
std::shared_ptr<const KeyTable> KeyTableOf(const ModelShape& shape);
// Its keys, then its values, in the memory of the stream's device: once a device of a process, for
// as long as somebody has it. Filled when it is returned.
std::shared_ptr<const FlatBuffer> KeyTableOn(const std::shared_ptr<const KeyTable>& table,
                                             const Stream& stream);

}  // namespace plumb::policy_model
