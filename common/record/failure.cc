#include "common/record/failure.h"

namespace plumb {

std::string_view FailureName(Failure failure) {
  switch (failure) {
    case Failure::kNone: return "none";
    case Failure::kTimeout: return "timeout";
    case Failure::kCrash: return "crash";
    case Failure::kExit: return "exit";
    case Failure::kMemory: return "memory";
    case Failure::kNotFinite: return "not_finite";
    case Failure::kWrongCount: return "wrong_count";
    case Failure::kBadReply: return "bad_reply";
    case Failure::kOutputCap: return "output_cap";
    case Failure::kReported: return "reported";
    case Failure::kStart: return "start";
    case Failure::kQuarantined: return "quarantined";
    case Failure::kUnavailable: return "unavailable";
    case Failure::kProcesses: return "processes";
    case Failure::kCount: break;
  }
  return "unknown";
}

}  // namespace plumb
