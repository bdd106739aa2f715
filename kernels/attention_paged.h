// Causal grouped-query attention of generation: each row reads the keys and values of its sequence from the pages.
//
// A row's result depends only on its own query and its sequence's pages: the same bits for any batch and for any split
// of a prompt into prefill chunks. On the CPU also the same for any page size.
#pragma once

#include "kernels/launch.h"
#include "kernels/paged_kv.h"

namespace plumb::kernels {

// q: the first Nq * D columns of T[rows, q_stride]; out: T[rows, Nq * D]. Row r attends to positions 0 .. position[r].
void AttentionPaged(const Launch& launch, const void* q, int64_t q_stride, const PagedRows& rows, int32_t heads,
                    int32_t layer, const PagedKv& kv, void* out);

// Copies page `from` to page `to` in every layer (a shared partial page before it is written). [count] each.
void CopyPages(const Launch& launch, const int32_t* from, const int32_t* to, int32_t count, const PagedKv& kv);

}  // namespace plumb::kernels
