// Why other people's code gave no answer: of reward functions and of environments.
//
// Purpose: counted by kind; the names are those of the metrics and of samples.jsonl. Thread safety:
// values. Errors: none.
#pragma once

#include <cstdint>
#include <string_view>

namespace plumb {

enum class Failure : uint8_t {
  kNone = 0,
  kTimeout,      // the wall deadline passed; the process group was killed
  kCrash,        // the host process was ended by a signal
  kExit,         // the host process ended itself, e.g. exit(0)
  kMemory,       // it could not get memory within its limit
  kNotFinite,    // NaN or infinity
  kWrongCount,   // more or fewer scores than answers
  kBadReply,     // bytes that are not a reply, or a reply without the fields
  kOutputCap,    // it wrote more than the cap
  kReported,     // the function said that it could not score this answer
  kStart,        // the host process could not be started or did not greet in time
  kQuarantined,  // this input crashed the function before, too often
  kUnavailable,  // nobody answers at its endpoint, or the peer refused us
  kProcesses,    // it started more processes than it may
  kCount,        // number of kinds
};
std::string_view FailureName(Failure failure);  // "timeout", "crash", ...

}  // namespace plumb
