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

// Steps that are recorded on a GPU are filled up, at their end, with rows that are the first one
// once more and have to come to what it comes to, bit for bit, because they write the same keys and
// values (actor/step_graphs.h). Where a row changes the state that it reads, the first one does it
// alone and gives the others its result.
PLUMB_HOST_DEVICE inline bool RepeatsFirst(const PagedRows& rows, int32_t row) {
  return row > 0 && rows.slot[row] == rows.slot[0] && rows.position[row] == rows.position[0];
}

// Calls store(row) for `row` and, where that is the first, for those that repeat it.
template <class Store>
PLUMB_HOST_DEVICE void ForRowAndRepeats(const PagedRows& rows, int32_t row, const Store& store) {
  store(row);
  if (row > 0) return;
  for (int32_t r = rows.rows - 1; r > 0 && RepeatsFirst(rows, r); --r) store(r);
}

}  // namespace plumb::kernels
