// The states of a model whose layers have them (policy_model/families/hybrid/state_layers.h): a
// run of floats for each row of the page tables, slots first, then prompts in work.
//
// A prompt's state is that behind its last prefilled token; each sample begins with a copy of it,
// because a state goes on with what is drawn. Nothing is cleared: a token at position 0 begins with
// zeros. Thread safety: none; the engine's thread owns it. Ownership: owns the memory, which lies
// on the stream's device and is mapped lazily on the CPU: a row that is never used costs nothing
// there. Errors: kUnavailable.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/delta/sequence_states.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::actor {

class StateRows {
 public:
  // `row_bytes`: of one row; 0: the model has no states.
  StateRows(const Stream& stream, int64_t row_bytes, int32_t rows);
  ~StateRows();
  StateRows(const StateRows&) = delete;
  StateRows& operator=(const StateRows&) = delete;

  kernels::SequenceStates view() const { return {data_, row_bytes_ / 4}; }
  int64_t row_bytes() const { return row_bytes_; }
  void Copy(int32_t from, int32_t to);  // on the stream

 private:
  const Stream stream_;
  const int64_t row_bytes_;
  const int32_t rows_;
  float* data_ = nullptr;
  size_t mapped_bytes_ = 0;
  policy_model::FlatBuffer device_memory_;  // of a GPU
};

}  // namespace plumb::actor
