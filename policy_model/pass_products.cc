#include "policy_model/pass_products.h"

#include "policy_model/layers/fp16/fp16_linear.h"
#include "policy_model/layers/fp8/fp8_linear.h"

namespace plumb::policy_model {

using configs::Products;

void CheckProducts(Products products, const Stream& stream, DType dtype, const TensorTable& table) {
  switch (products) {
    case Products::kDType: return;
    case Products::kFp8: return CheckFp8(stream, dtype, table);
    case Products::kFp16: return CheckFp16(table);
  }
}

void SetProducts(Products products, PackedPass& pass) {
  pass.fp8 = products == Products::kFp8;
  pass.fp16 = products == Products::kFp16;
}

}  // namespace plumb::policy_model
