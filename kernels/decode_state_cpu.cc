#include "kernels/decode_state.h"

namespace plumb::kernels {

void GatherAddresses::Cpu(const Launch&) const {
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t s = slots[r];
    prompt_out[r] = state.prompt[s];
    sample_out[r] = state.sample[s];
    position_out[r] = state.position[s] + 1;
  }
}

void AdvanceSlots::Cpu(const Launch&) const {
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t s = slots[r];
    if (state.status[s] != static_cast<uint8_t>(SlotStatus::kRunning)) continue;
    const int32_t t = token[r];
    if (t < 0) {
      state.status[s] = static_cast<uint8_t>(SlotStatus::kFailed);
      continue;
    }
    const int64_t at = int64_t{s} * state.max_new_tokens + state.generated[s];
    state.tokens[at] = t;
    state.logprobs[at] = logprob[r];
    state.versions[at] = *state.version;
    state.last_token[s] = t;
    ++state.position[s];
    ++state.generated[s];
    bool stopped = false;
    for (int32_t e = 0; e < num_eos; ++e) stopped = stopped || eos[e] == t;
    if (stopped) state.status[s] = static_cast<uint8_t>(SlotStatus::kStopped);
    else if (state.generated[s] >= state.limit[s])
      state.status[s] = static_cast<uint8_t>(SlotStatus::kLength);
  }
}

void NextRows::Cpu(const Launch&) const {
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t s = slots[r];
    if (state.status[s] != static_cast<uint8_t>(SlotStatus::kRunning)) continue;
    token[r] = state.last_token[s];
    position[r] = state.position[s];
  }
}

}  // namespace plumb::kernels
