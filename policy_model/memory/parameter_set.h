// A set of parameters: a table of tensors, their flat buffer, and whether it is trained. A model is
// a base set and any number of adapter sets; what loads, saves, updates, digests or publishes a
// model is a loop over them.
//
// Thread safety: readers may share a const object; writers need it alone. Ownership: owns its
// memory; several models may share one set that none of them trains.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "common/record/trajectory.h"
#include "policy_model/families/adapter_table.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {

struct ParameterSet {
  std::string name;  // "base", or the adapter's
  std::shared_ptr<const TensorList> table;
  std::shared_ptr<const AdapterTable> adapter = {};  // `table` once more; of a base: none
  bool trained = true;
  // Kept of a set that is not trained: it is asked for after every update of the others.
  Digest digest = {};
  FlatBuffer flat;

  ParameterSet(std::string its_name, std::shared_ptr<const TensorList> list, const Stream& stream,
               DType dtype)
      : name(std::move(its_name)),
        table(std::move(list)),
        flat(stream, dtype, table->flat_elements()) {}
  // With a buffer of the caller's making.
  ParameterSet(std::string its_name, std::shared_ptr<const TensorList> list, FlatBuffer its_flat)
      : name(std::move(its_name)), table(std::move(list)), flat(std::move(its_flat)) {}
};

// Elements [begin, end) of a set that are trained; what is kept for them begins at `at`.
struct TrainedRun {
  int64_t begin = 0, end = 0, at = 0;
};

// Where what is kept for the element `offset` of a set lies; -1 for one that is not trained.
// `runs`: ascending.
inline int64_t PlaceOf(std::span<const TrainedRun> runs, int64_t offset) {
  const auto behind =
      std::upper_bound(runs.begin(), runs.end(), offset,
                       [](int64_t element, const TrainedRun& run) { return element < run.end; });
  if (behind == runs.end() || offset < behind->begin) return -1;
  return behind->at + (offset - behind->begin);
}

// Where a backward adds the gradients of a model's sets: float; nullptr for a set that is not
// trained. Borrowed.
struct Gradients {
  FlatBuffer* base = nullptr;
  std::span<FlatBuffer* const> adapters = {};
  // Of which elements of a set there are gradients, and where; without runs of all, in the set's
  // own order.
  std::span<const TrainedRun> base_runs = {};
  std::span<const std::span<const TrainedRun>> adapter_runs = {};
  // What adapters drop by in the passes that these are of: another for every update.
  uint64_t dropout_key = 0;
  // What the loss is multiplied by in these passes (learner/update/guard/loss_scale.h), and with it
  // all of these.
  float loss_scale = 1;

  Gradients() = default;
  Gradients(FlatBuffer& of_base) : base(&of_base) {}  // NOLINT: a model that is its base alone

  // Of the parameters at an offset of the base, or of an adapter; nullptr where they are not
  // trained.
  float* OfBase(int64_t offset) const { return In(base, base_runs, offset); }
  float* OfAdapter(size_t i, int64_t offset) const {
    return i < adapters.size()
               ? In(adapters[i],
                    i < adapter_runs.size() ? adapter_runs[i] : std::span<const TrainedRun>(),
                    offset)
               : nullptr;
  }

 private:
  static float* In(FlatBuffer* flat, std::span<const TrainedRun> runs, int64_t offset) {
    if (!flat) return nullptr;
    const int64_t place = runs.empty() ? offset : PlaceOf(runs, offset);
    return place < 0 ? nullptr : flat->f32() + place;
  }
};

}  // namespace plumb::policy_model
