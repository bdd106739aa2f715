// What layers without keys and values carry from token to token: one run of floats for every row of
// the page table (kernels/paged_kv.h), in which each such layer has its place.
//
// A token at position 0 begins with zeros, whatever lies there. Ownership: actor/state_rows owns
// the memory; kernels read and write through this view. Thread safety: a row belongs to one
// sequence, and a call to one thread. CPU only.
#pragma once

#include <cstdint>

namespace plumb::kernels {

struct SequenceStates {
  float* data = nullptr;
  int64_t stride = 0;  // floats of a row, all layers together
};

}  // namespace plumb::kernels
