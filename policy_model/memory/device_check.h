// What is computed on the CPU only.
//
// Thread safety: a pure function. Errors: kUnsupported, naming the part of the model.
#pragma once

#include "common/base/device.h"
#include "policy_model/families/model_shape.h"

namespace plumb::policy_model {

// kUnsupported for a model that is not computed on this device: mixtures of experts, layers with
// states and latent
// attention on a GPU.
void CheckDeviceOf(const ModelShape& shape, Device device);

}  // namespace plumb::policy_model
