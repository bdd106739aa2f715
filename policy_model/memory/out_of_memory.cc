#include "policy_model/memory/out_of_memory.h"

#include <c10/util/Exception.h>

#include <new>
#include <string>
#include <string_view>

#include "common/base/size_text.h"

namespace plumb::policy_model {
namespace {

std::string Words(Device device, int64_t asked) {
  const std::string whose = device.is_cpu() ? "this machine" : DeviceName(device);
  if (asked <= 0) return "the memory of " + whose + " is used up";
  return "the memory of " + whose + " is used up: there were no " + SizeText(asked) + " more";
}

// LibTorch has a type for a GPU's memory only.
bool MeansMemory(std::string_view what) {
  for (const std::string_view words :
       {"can't allocate memory", "not enough memory", "CUDA out of memory", "out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"}) {
    if (what.find(words) != std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

OutOfMemory::OutOfMemory(Device device, int64_t asked)
    : Error(ErrorCode::kIo, Words(device, asked)) {}

void RethrowOutOfMemory(Device device, int64_t asked) {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    throw OutOfMemory(Device::kCpu, asked);
  } catch (const c10::OutOfMemoryError&) {
    throw OutOfMemory(device, asked);
  } catch (const c10::Error& e) {
    if (!MeansMemory(e.what_without_backtrace())) throw;
    throw OutOfMemory(device, asked);
  }
}

}  // namespace plumb::policy_model
