// The products of expert_products.h on Hopper's warp groups (wgmma), for bfloat16.
//
// Purpose: what ExpertProduct and ExpertWeightProduct try first on a GPU. Whether they take a
// product is said by its sizes, strides and addresses, not by how many rows there are, so a row's
// bits are the same beside few and many others (warpgroup_tile.h has the order of sums).
// Thread safety, errors: kernels/device/launch.h. Only in builds with CUDA.
#pragma once

#include "kernels/products/expert_products.h"

namespace plumb::kernels {

// False, and nothing is done: n or k or a stride is not a multiple of 8, an address not one of 16
// bytes, there are more than 1,024 experts, or the GPU has no warp groups (compute capability 9).
bool WarpgroupProduct(const Launch& launch, const ExpertProduct& product);
bool WarpgroupProduct(const Launch& launch, const ExpertWeightProduct& product);
// Besides: not where experts have few rows. The bits are those of the kernels it is made of.
bool WarpgroupProduct(const Launch& launch, const GatedExpertProduct& product);
bool WarpgroupProduct(const Launch& launch, const GatedExpertBackward& product);
bool WarpgroupProduct(const Launch& launch, const GatedExpertGradients& product);

}  // namespace plumb::kernels
