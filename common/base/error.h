// What can go wrong and how it is said.
//
// Purpose: one exception type for everything that can happen (bad input, a full disk, a dead peer)
// and checks that abort for everything that cannot (a broken invariant of ours). Errors are thrown
// where they are noticed and caught at a role's loop, the command line and the C ABI, nowhere else.
// Thread safety: values only.
#pragma once

#include <cstdint>
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace plumb {

// Exit codes of the command line follow from these (run/commands/cli.h); do not change the values
// of existing entries.
enum class ErrorCode : uint8_t {
  kInvalidArgument = 1,  // the user asked for something that cannot be
  kNotFound = 2,         // a file, key, tensor or option that is not there
  kCorruption = 3,       // bytes that do not say what their header promises
  kIo = 4,               // the operating system refused
  kNoSpace = 5,          // the disk is full
  kDeadline = 6,         // a wait ended without what it waited for
  kUnavailable = 7,      // a peer or resource is away; trying again can help
  kConflict = 8,         // somebody else holds it, or it contradicts what is stored
  kUnsupported = 9,      // valid, but not something this build or version does
  kNonFinite = 10,       // NaN or infinity where a number has to be
};

// Name in logs and JSON, e.g. "invalid_argument".
std::string_view ErrorCodeName(ErrorCode code);

class Error : public std::runtime_error {
 public:
  // `message` says what happened and what to do; `where` names the input (file:line, option,
  // endpoint), may be empty.
  Error(ErrorCode code, std::string message, std::string where = {});

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& where() const { return where_; }

 private:
  ErrorCode code_;
  std::string message_;
  std::string where_;
};

namespace internal {
[[noreturn]] void CheckFailed(const char* condition, const std::string& detail,
                              std::source_location at);
}  // namespace internal

}  // namespace plumb

// Abort on what cannot happen, with the place. The second argument is a std::string with the values
// involved.
#define PLUMB_CHECK(condition, ...)                                          \
  do {                                                                       \
    if (!(condition)) [[unlikely]]                                           \
      ::plumb::internal::CheckFailed(#condition, ::std::string{__VA_ARGS__}, \
                                     ::std::source_location::current());     \
  } while (false)

#ifdef NDEBUG
#define PLUMB_DCHECK(condition, ...) \
  do {                               \
  } while (false)
#else
#define PLUMB_DCHECK(condition, ...) PLUMB_CHECK(condition, __VA_ARGS__)
#endif
