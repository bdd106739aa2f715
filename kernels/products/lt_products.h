// Products by cuBLASLt, with the number of splits of k fixed to 1. Only in a build with CUDA.
//
// Purpose: measured on an H200, the bits of a row depend on the number of splits of its sum and on
// nothing else that the library lets one choose: neither on tile, stages and cluster nor on the
// number of rows (algorithms 13 and 16 are exceptions, and are left out). So splits stay at 1, and
// tiles are tuned for numbers of rows (RowBucket). What is found is checked before it is used: the
// winner has to give the bits of the algorithm that stands for its n and k when nothing was tuned.
// Timing happens with the first call of a ProductKey, on the caller's stream, in memory taken for
// it and given back; while the stream is recorded, and where there is no memory for it, the
// library's guess for so many rows is used without its splits, which gives the same bits.
// Choices are kept in the process and in a file of the user's cache folder (product_choices.h).
// A workspace, where an algorithm wants one, belongs to the stream: taken once, outside a record,
// and kept as long as the process lives, since graphs hold its address.
// Asking the library's heuristic for algorithms without a reduction is no way to them: it then
// answers with ones that are 9 to 18 times slower.
// Thread safety: all; a first call of a kind waits for another that times on the same device.
// Errors: kIo for what the library refuses.
#pragma once

#include <optional>

#include "kernels/products/product_choices.h"
#include "kernels/products/row_product.h"

namespace plumb::kernels {

// Enqueues the product. false: the library has no algorithm that qualifies, nothing was enqueued;
// for one n, k, types and epilogue that is so for every m.
bool LtProduct(const Launch& launch, const RowProduct& product);

// What is used for products of this kind by now; nothing: they have not been tuned.
std::optional<ProductChoice> ChosenProduct(Device device, const ProductKey& key);
// "algorithm 66, tile 64x8, cluster 2x1, option 1"; a tile that we know no sizes of by its number.
std::string ProductChoiceText(const ProductChoice& choice);
ChoicesOwner ChoicesOwnerOf(Device device);

}  // namespace plumb::kernels
