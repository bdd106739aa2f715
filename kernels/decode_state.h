// The state of requests being generated: flat arrays that only the functions here change, so that
// the same scheduler drives plain loops on the CPU and captured graphs on a GPU.
//
// Slot s is one sequence. The host fills a slot (StartSlot), the device advances it (AdvanceSlots),
// the host reads `finished` and the outputs some steps later. Thread safety, alignment, errors:
// kernels/device/launch.h.
#pragma once

#include <cstdint>

#include "kernels/device/launch.h"

namespace plumb::kernels {

// Do not change the values of existing entries.
enum class SlotStatus : uint8_t {
  kEmpty = 0,
  kRunning = 1,
  kStopped = 2,
  kLength = 3,
  kFailed = 4
};

// All pointers in the device's memory. S: max_slots, N: max_new_tokens.
struct DecodeState {
  int32_t max_slots = 0;
  int32_t max_new_tokens = 0;
  int32_t* last_token = nullptr;  // [S] input of the next step
  int32_t* position = nullptr;    // [S] position of last_token
  int32_t* generated = nullptr;   // [S] tokens sampled so far
  int32_t* limit = nullptr;       // [S] stop after so many
  uint8_t* status = nullptr;      // [S] SlotStatus
  uint64_t* prompt = nullptr;     // [S] random address: lease id
  uint32_t* sample = nullptr;     // [S] random address: sample number
  int64_t* version = nullptr;     // [1] policy version that samples now
  int32_t* tokens = nullptr;      // [S, N] sampled tokens
  float* logprobs = nullptr;      // [S, N]
  int64_t* versions = nullptr;    // [S, N]
};

// Gathers the inputs of the sampler for `rows` running slots; position_out is that of the token to
// be drawn (position + 1).
struct GatherAddresses {
  static constexpr const char* kName = "GatherAddresses";
  DecodeState state;
  const int32_t* slots = nullptr;  // [rows]
  int32_t rows = 0;
  uint64_t* prompt_out = nullptr;   // [rows]
  uint32_t* sample_out = nullptr;   // [rows]
  int32_t* position_out = nullptr;  // [rows]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Appends token[r] / logprob[r] to slot slots[r], moves its position on and decides: token < 0 ->
// kFailed; one of eos[0..num_eos) -> kStopped (the end token is part of the output); limit reached
// -> kLength. Slots that are not running are left alone.
struct AdvanceSlots {
  static constexpr const char* kName = "AdvanceSlots";
  DecodeState state;
  const int32_t* slots = nullptr;  // [rows]
  int32_t rows = 0;
  const int32_t* token = nullptr;  // [rows]
  const float* logprob = nullptr;  // [rows]
  const int32_t* eos = nullptr;    // [num_eos]
  int32_t num_eos = 0;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// The rows of the step behind this one, before the host has seen what was drawn: of a slot that
// goes on, its token and position; of one that has ended the row stays as it was, so that it writes
// what it wrote before.
struct NextRows {
  static constexpr const char* kName = "NextRows";
  DecodeState state;
  const int32_t* slots = nullptr;  // [rows]
  int32_t rows = 0;
  int32_t* token = nullptr;     // [rows]
  int32_t* position = nullptr;  // [rows]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels
