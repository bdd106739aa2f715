// What layers without keys and values carry from token to token: one run of floats for every row of
// the page table (kernels/paged_kv.h), in which each such layer has its place.
//
// A token at position 0 begins with zeros, whatever lies there. Ownership: actor/state_rows owns
// the memory; kernels read and write through this view. Thread safety: a row belongs to one
// sequence, and a call to one thread.
#pragma once

#include <cstdint>

#include "common/base/dtype.h"
#include "kernels/paged_kv.h"

namespace plumb::kernels {

struct SequenceStates {
  float* data = nullptr;
  int64_t stride = 0;  // floats of a row, all layers together
};

// Steps that are recorded on a GPU are filled up with rows that are the first one once more
// (actor/step_graphs.h). Where a row changes what it reads, only the first one may do so: such rows
// give zeros.
PLUMB_HOST_DEVICE inline bool RepeatsFirst(const PagedRows& rows, int32_t row) {
  return row > 0 && rows.slot[row] == rows.slot[0] && rows.position[row] == rows.position[0];
}

}  // namespace plumb::kernels
