#include "policy_model/memory/device_check.h"

#include <string>

#include "common/base/error.h"

namespace plumb::policy_model {

void CheckDeviceOf(const ModelShape& shape, Device device) {
  if (device.is_cpu()) return;
  if (shape.hybrid.count() > 0) {
    throw Error(ErrorCode::kUnsupported,
                "this model (" + shape.family + ") has a state of constant size in " +
                    std::to_string(shape.hybrid.count()) + " of " + std::to_string(shape.layers) +
                    " layers, which is computed on the CPU only; set run.device = \"cpu\"");
  }
  if (shape.experts.count == 0 && !shape.latent.there()) return;
  throw Error(
      ErrorCode::kUnsupported,
      "this model (" + shape.family + ", " +
          (shape.experts.count > 0 ? std::to_string(shape.experts.count) + " experts a layer"
                                   : "latent attention") +
          ") is computed on the CPU only; set run.device = \"cpu\"");
}

}  // namespace plumb::policy_model
