// The weights of a model, a base set and adapter sets, and how they come from and go to files.
//
// Thread safety: readers may share a const object; writers need it alone. Ownership: owns its sets,
// or shares them with a model that it was made from. Host memory: loading, initialising and saving
// go tensor by tensor and need a MiB besides the buffer.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/hash/digest.h"
#include "common/record/trajectory.h"
#include "policy_model/memory/parameter_set.h"

namespace plumb::policy_model {

class Weights {
 public:
  Weights(const ModelShape& shape, const Stream& stream, DType dtype);
  // Its tables alone: what there would be, for a plan of memory (FlatBuffer::WithoutMemory).
  static Weights WithoutMemory(const ModelShape& shape, const Stream& stream, DType dtype);
  Weights(Weights&&) = default;
  Weights& operator=(Weights&&) = default;

  const TensorTable& table() const { return *table_; }
  const ModelShape& shape() const { return table_->shape(); }
  const Stream& stream() const { return flat().stream(); }
  Device device() const { return flat().device(); }
  DType dtype() const { return flat().dtype(); }
  // The base first, then the adapters.
  std::span<const std::shared_ptr<ParameterSet>> sets() const { return sets_; }
  ParameterSet& base() { return *sets_[0]; }
  const ParameterSet& base() const { return *sets_[0]; }
  std::span<const std::shared_ptr<ParameterSet>> adapters() const { return sets().subspan(1); }
  FlatBuffer& flat() { return base().flat; }  // of the base
  const FlatBuffer& flat() const { return base().flat; }

  // Adds an adapter, which is trained in the place of the sets before it: A uniform within +-1 /
  // sqrt(columns), B 0, so that the model stays what it is. Same bits for the same seed. Tokens of
  // tasks, with which it does not, begin as embeddings of tokens that the base has.
  // kUnsupported: tasks on a GPU.
  void AddAdapter(const AdapterSpec& spec, uint64_t seed);
  // Some of what goes into an adapter is dropped while it is trained: passes with a backward then
  // compute another function than those without.
  bool Drops() const;
  // Which of adapters() has tasks; -1: none.
  int gated() const;
  // Learned tokens in front of the rows of a task.
  int64_t task_tokens() const;
  // The same model for one of its tasks, which shares the base: its adapters are one of K times the
  // rank, in which their weights are. Its rows name no task, unless it has task tokens: then they
  // name the one there is. kInvalidArgument: the task is none of them.
  Weights ForTask(const std::string& task) const;
  // Makes the adapters a part of the base, which is the only set then, and trained: W + scale B A,
  // summed in float and rounded once for each adapter. Not while another model shares the base,
  // nor with tasks.
  void Merge();
  // The same sets without the adapters: a model that shares the base's memory with this one.
  Weights WithoutAdapters() const;
  // The same model with memory of its own for sets that are trained, zeroed; it shares the others.
  Weights Twin() const;

  // Normal(0, init_std), residual projections scaled by (2L)^-1/2, norms 1, biases 0. Same bits for
  // the same seed.
  void Initialise(uint64_t seed, double init_std);
  // The base from an HF directory's safetensors; every tensor used, none left over (kCorruption
  // names them).
  void Load(const std::string& directory);
  // What is trained, from a folder that SaveModelDirectory wrote: the base, or adapters under
  // PEFT's names. kConflict for an adapter of another kind.
  void LoadTrained(const std::string& directory);
  // Of each set by name (a tree hash of its flat bytes, common/base/hash/digest.h, computed where
  // they lie), and of all together.
  std::vector<std::pair<std::string, Digest>> SetDigests() const;
  Digest ComputeDigest() const { return CombineSets(SetDigests()); }

 private:
  Weights() = default;
  std::shared_ptr<const TensorTable> table_;
  std::vector<std::shared_ptr<ParameterSet>> sets_;
};

// Of any buffer.
Digest DigestOf(const FlatBuffer& flat);

// Writes what is trained: a complete HF model folder, config and weights in their dtype; or an
// adapter as PEFT's folder, which names `base_model`. Copies tokenizer.json, tokenizer_config.json
// and chat_template.jinja from `tokenizer_source` when it is not empty.
void SaveModelDirectory(const Weights& weights, const std::string& directory,
                        const std::string& tokenizer_source, const std::string& base_model = "");

}  // namespace plumb::policy_model
