// The weights of a model in one flat buffer, and how they come from and go to files.
//
// Thread safety: readers may share a const object; writers need it alone. Ownership: owns its memory.
// Host memory: loading, initialising and saving go tensor by tensor and need the largest of them besides the buffer.
#pragma once

#include <cstdint>
#include <string>

#include "common/trajectory.h"
#include "policy_model/families/tensor_table.h"
#include "policy_model/flat_buffer.h"

namespace plumb::policy_model {

class Weights {
 public:
  Weights(const ModelShape& shape, const Stream& stream, DType dtype);

  const TensorTable& table() const { return table_; }
  const ModelShape& shape() const { return table_.shape(); }
  FlatBuffer& flat() { return flat_; }
  const FlatBuffer& flat() const { return flat_; }

  // Normal(0, init_std), residual projections scaled by (2L)^-1/2, norms 1, biases 0. Same bits for the same seed.
  void Initialise(uint64_t seed, double init_std);
  // From an HF directory's safetensors; every tensor used, none left over (kCorruption names them). `master`, when not
  // nullptr, is a float buffer of flat_elements() that receives the unrounded values.
  void Load(const std::string& directory, FlatBuffer* master = nullptr);
  // model.safetensors under HF names from this buffer in its dtype (config.json and tokenizer files are the caller's).
  void Save(const std::string& directory) const;
  // Tree hash over the flat bytes (common/digest.h), computed where they lie.
  Digest ComputeDigest() const;

 private:
  TensorTable table_;
  FlatBuffer flat_;
};

// The same of any buffer.
Digest DigestOf(const FlatBuffer& flat);

// A model of the same trunk with a scalar head in place of the LM head: a reward model or critic that starts from a
// policy. Trunk: the policy's bits. Head: Normal(0, 1 / sqrt(H + 1)) keyed by `seed`, the usual start of such a head.
Weights ScalarHeadFrom(const Weights& policy, uint64_t seed);
// A scalar head alone, for a trunk that it shares with `policy` (Transformer::HeadValues): a model without layers, of which
// only the head is used. Drawn like the head above.
Weights ValueHeadFor(const Weights& policy, uint64_t seed);

// Reads ModelShape of a directory: config.json.  Writes a complete HF model folder: config, weights; copies
// tokenizer.json, tokenizer_config.json and chat_template.jinja from `tokenizer_source` when it is not empty.
void SaveModelDirectory(const Weights& weights, const std::string& directory, const std::string& tokenizer_source);

}  // namespace plumb::policy_model
