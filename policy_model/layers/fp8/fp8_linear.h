// A linear part of a layer whose products read 8 bits a number (Pass::fp8, model.products = "fp8"):
//   y  = x W^T    x and W as E4M3, a scale for each row of x and each of W
//   dx = dy W     dy as E5M2 with a scale for each row, W as E4M3 with a scale for each column
// What a product sums over shares a scale, which stands outside the sum. The gradient of W, a sum
// over all tokens, is computed in the model's type (linear.h): it is what an update is made of.
// Operands are quantised anew for each product (kernels/fp8); the weights that are trained, and
// generation, are not touched.
//
// On a GPU the products are LibTorch's with scales a row, summed in float32, and the model's type
// has to be bfloat16; on the CPU kernels::Fp8Product computes the same numbers.
// Thread safety: of the stage. Ownership: keeps offsets of the last plan. Errors: kUnsupported and
// kInvalidArgument from CheckFp8.
#pragma once

#include <cstdint>

#include "policy_model/layers/stage.h"

namespace plumb::policy_model {

// Throws unless the products of a model like that can be computed so on the device: kUnsupported
// for experts and for a GPU that has no such products (before compute capability 8.9),
// kInvalidArgument for float32 on a GPU and for widths that are no multiples of 16.
void CheckFp8(const Stream& stream, DType dtype, const TensorTable& table);

class Fp8Linear {
 public:
  Fp8Linear(int64_t rows, int64_t columns) : rows_(rows), columns_(columns) {}

  // What both products take of an arena, of n tokens.
  void Plan(const Pass& pass, int64_t n, Arena& scratch);
  // w: T[rows, columns]. Shapes and meanings: linear.h.
  void Forward(const PackedPass& pass, const void* w, const void* x, bool accumulate,
               void* y) const;
  void BackwardInput(const PackedPass& pass, const void* w, const void* dy, bool accumulate,
                     void* dx) const;

 private:
  const int64_t rows_, columns_;
  // Codes and scales of tokens and of weights; on a GPU room for rows of a product that is added.
  int64_t token_codes_ = 0, token_scales_ = 0, weight_codes_ = 0, weight_scales_ = 0, sum_ = 0;
  int64_t sum_elements_ = 0;
};

}  // namespace plumb::policy_model
