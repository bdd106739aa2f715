#include "policy_model/memory/device_check.h"

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "common/base/error.h"

namespace plumb::policy_model {

void CheckDeviceOf(const ModelShape& shape, Device device) {
  if (device.is_cpu()) return;
  const std::vector<int64_t>& widths = shape.experts.widths;
  const bool uneven =
      std::adjacent_find(widths.begin(), widths.end(), std::not_equal_to<>()) != widths.end();
  if (!uneven) return;
  throw Error(ErrorCode::kUnsupported,
              "this model (" + shape.family +
                  ", experts of different widths) is computed on the CPU only; set run.device = "
                  "\"cpu\"");
}

}  // namespace plumb::policy_model
