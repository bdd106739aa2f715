// Where memory ends, as one error that says so, whoever noticed it.
//
// Purpose: LibTorch, its allocators and the standard library each have an exception of their own;
// who calls them at a role's edge or takes a buffer turns them into one sentence.
// Thread safety: pure functions of the exception that is being handled. Errors: kIo.
#pragma once

#include <cstdint>

#include "common/base/device.h"
#include "common/base/error.h"

namespace plumb::policy_model {

class OutOfMemory : public Error {
 public:
  // `asked`: bytes that there were no more of; 0: not known.
  OutOfMemory(Device device, int64_t asked);
};

// Within a catch block: throws OutOfMemory for what means that memory ended, else what was caught
// once more.
[[noreturn]] void RethrowOutOfMemory(Device device, int64_t asked = 0);

}  // namespace plumb::policy_model
