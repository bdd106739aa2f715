// A set of parameters: a table of tensors, their flat buffer, and whether it is trained. A model is
// a base set and any number of adapter sets; what loads, saves, updates, digests or publishes a
// model is a loop over them.
//
// Thread safety: readers may share a const object; writers need it alone. Ownership: owns its
// memory; several models may share one set that none of them trains.
#pragma once

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

// Where a backward adds the gradients of a model's sets: float, laid out as they are; nullptr for a
// set that is not trained. Borrowed.
struct Gradients {
  FlatBuffer* base = nullptr;
  std::span<FlatBuffer* const> adapters = {};

  Gradients() = default;
  Gradients(FlatBuffer& of_base) : base(&of_base) {}  // NOLINT: a model that is its base alone
};

}  // namespace plumb::policy_model
