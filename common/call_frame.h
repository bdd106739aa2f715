// The frames of common/rpc as a plain struct. Private to the transport target.
// Thread safety: pure functions. Errors: kCorruption from DecodeCallFrame.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/schema/control_generated.h"

namespace plumb {

// Fields as in common/schema/control.fbs.
struct CallFrame {
  wire::CallKind kind = wire::CallKind::Request;
  std::string client;
  uint64_t id = 0;
  std::string verb;
  int64_t timeout_ms = 0;
  uint8_t error = 0;
  std::string message;
  std::string where;
  uint32_t checksum = 0;
  uint64_t beat = 0;
  std::vector<uint64_t> ids;
};

std::string EncodeCallFrame(const CallFrame& frame);
CallFrame DecodeCallFrame(std::string_view bytes);

// Of a payload and of the call it belongs to.
uint32_t CallChecksum(const CallFrame& frame, std::string_view payload);

}  // namespace plumb
