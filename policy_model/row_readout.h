// What is read out of the rows that a head sees, for a guest of a pass (pass_guest.h).
//
// Thread safety: pure functions of their buffers. On a GPU the work is enqueued on Launch::stream
// and LibTorch takes scratch memory for it.
#pragma once

#include <cstdint>

#include "kernels/device/launch.h"

namespace plumb::policy_model {

// ids[rows, count]: the largest logits of each row in falling order; -1 behind the last that is not
// -infinity. Which of equal ones comes first is open on a GPU; on the CPU it is the smaller id.
void LikeliestTokens(const kernels::Launch& launch, const float* logits, int64_t rows,
                     int64_t vocab, int64_t count, int32_t* ids);

// out float[rows, to] = hidden T[rows, width] map[to, width]^T, map in T.
void MapHidden(const kernels::Launch& launch, const void* hidden, const void* map, int64_t rows,
               int64_t width, int64_t to, float* out);

}  // namespace plumb::policy_model
