#include "policy_model/kept_logits.h"

#include <algorithm>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"

namespace plumb::policy_model {

float* KeptLogits::Room(int64_t rows, int64_t vocab) {
  const int64_t floats = rows * vocab;
  if (floats <= memory_.elements()) return memory_.f32();
  if (stream_.device().is_cpu() || floats >= refused_) return nullptr;
  // A little more, so that packed rows of about one size take memory once.
  const int64_t taken = floats + floats / 8;
  const auto refuse = [&] {
    refused_ = std::min(refused_, floats);
    return nullptr;
  };
  if (!Fits(4 * taken, bytes() + kernels::DeviceBytesFree(stream_.device()))) return refuse();
  memory_ = FlatBuffer();  // old memory goes first
  try {
    memory_ = FlatBuffer(stream_, DType::kFloat32, taken);
  } catch (const Error&) {
    return refuse();  // free, and not in one piece: the pass goes on without
  }
  return memory_.f32();
}

}  // namespace plumb::policy_model
