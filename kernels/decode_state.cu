#include "kernels/decode_state.h"
#include "kernels/device/cuda_common.h"

namespace plumb::kernels {
namespace {

__global__ void Addresses(DecodeState state, const int32_t* slots, int32_t rows,
                          uint64_t* prompt_out, uint32_t* sample_out, int32_t* position_out) {
  AwaitEarlier();
  const auto r = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (r >= rows) return;
  const int32_t s = slots[r];
  prompt_out[r] = state.prompt[s];
  sample_out[r] = state.sample[s];
  position_out[r] = state.position[s] + 1;
}

__global__ void Advance(DecodeState state, const int32_t* slots, int32_t rows, const int32_t* token,
                        const float* logprob, const int32_t* eos, int32_t num_eos) {
  AwaitEarlier();
  const auto r = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (r >= rows) return;
  const int32_t s = slots[r];
  if (state.status[s] != static_cast<uint8_t>(SlotStatus::kRunning)) return;
  const int32_t t = token[r];
  if (t < 0) {
    state.status[s] = static_cast<uint8_t>(SlotStatus::kFailed);
    return;
  }
  const int64_t at = int64_t{s} * state.max_new_tokens + state.generated[s];
  state.tokens[at] = t;
  state.logprobs[at] = logprob[r];
  state.versions[at] = *state.version;
  state.last_token[s] = t;
  ++state.position[s];
  const int32_t generated = ++state.generated[s];
  bool stopped = false;
  for (int32_t e = 0; e < num_eos; ++e) stopped = stopped || eos[e] == t;
  if (stopped) state.status[s] = static_cast<uint8_t>(SlotStatus::kStopped);
  else if (generated >= state.limit[s]) state.status[s] = static_cast<uint8_t>(SlotStatus::kLength);
}

__global__ void Next(DecodeState state, const int32_t* slots, int32_t rows, int32_t* token,
                     int32_t* position) {
  AwaitEarlier();
  const auto r = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (r >= rows) return;
  const int32_t s = slots[r];
  if (state.status[s] != static_cast<uint8_t>(SlotStatus::kRunning)) return;
  token[r] = state.last_token[s];
  position[r] = state.position[s];
}

}  // namespace

void GatherAddresses::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  LaunchEarly(Addresses, dim3(Blocks(rows, 128)), dim3(128), StreamOf(launch), state, slots, rows,
              prompt_out, sample_out, position_out);
  CheckLaunch(kName);
}

void AdvanceSlots::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  LaunchEarly(Advance, dim3(Blocks(rows, 128)), dim3(128), StreamOf(launch), state, slots, rows,
              token, logprob, eos, num_eos);
  CheckLaunch(kName);
}

void NextRows::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  LaunchEarly(Next, dim3(Blocks(rows, 128)), dim3(128), StreamOf(launch), state, slots, rows, token,
              position);
  CheckLaunch(kName);
}

}  // namespace plumb::kernels
