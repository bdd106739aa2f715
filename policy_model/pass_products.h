// What the products of layers in a packed pass read (model.products): numbers of the model's type,
// FP8 (layers/fp8) or float16 (layers/fp16).
//
// Purpose: passes and plans of their memory (pass_bytes.h) ask the same layers. Head, attention,
// norms and embedding are of the model's type under all of them.
// Thread safety: pure functions. Errors: those of CheckFp8 and CheckFp16.
#pragma once

#include "configs/choices.h"
#include "policy_model/layers/stage.h"

namespace plumb::policy_model {

// Throws unless a model like that can be computed so on the device.
void CheckProducts(configs::Products products, const Stream& stream, DType dtype,
                   const TensorTable& table);
void SetProducts(configs::Products products, PackedPass& pass);

}  // namespace plumb::policy_model
