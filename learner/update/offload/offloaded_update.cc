#include "learner/update/offload/offloaded_update.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "common/base/error.h"
#include "kernels/update/adamw_compact.h"

namespace plumb::learner {

using policy_model::FlatBuffer;
using Part = StateStream::Part;

namespace {

constexpr size_t kFloat = sizeof(float);

Part Floats(FlatBuffer& of, int64_t first, int64_t n) {
  return {.host = of.at(first), .bytes = static_cast<size_t>(n) * kFloat};
}

// Elements [first, first + n) of a tensor in `moment`.
void AddMoment(const kernels::MomentState& moment, int64_t first, int64_t n,
               std::vector<Part>& parts) {
  if (moment.exact) {
    parts.push_back({.host = moment.exact + first, .bytes = static_cast<size_t>(n) * kFloat});
    return;
  }
  const int64_t blocks = kernels::MomentBlocks(n);
  parts.push_back({.host = moment.codes + first, .bytes = static_cast<size_t>(n)});
  parts.push_back({.host = moment.scales + first / kernels::kMomentBlock,
                   .bytes = static_cast<size_t>(blocks) * kFloat});
}

// The same where it lies on the device, from address number `next` on.
kernels::MomentState MomentAt(const kernels::MomentState& moment, const StateStream::Addresses& at,
                              size_t& next) {
  if (moment.exact) return {.exact = static_cast<float*>(at[next++])};
  kernels::MomentState out{.codes = static_cast<uint8_t*>(at[next])};
  out.scales = static_cast<float*>(at[next + 1]);
  next += 2;
  return out;
}

}  // namespace

void CheckOffload(const configs::OptimizerConfig& options) {
  if (!options.offload || options.name != configs::OptimizerName::kMuon) return;
  throw Error(ErrorCode::kInvalidArgument,
              "sends state through the device in pieces, and optimizer.name = \"muon\" updates "
              "whole matrices: leave it out, or use \"adamw\"",
              "optimizer.offload");
}

void TakeStateMemory(const Stream& stream, bool in_host_memory, Optimizer::SetState& state) {
  const auto take = [&] {
    const int64_t n = state.kept_elements();
    return in_host_memory ? FlatBuffer::InHostMemory(stream, DType::kFloat32, n)
                          : FlatBuffer(stream, DType::kFloat32, n);
  };
  if (state.in_8_bits) {
    state.m8 = CompactMoments(stream, *state.set->table, in_host_memory);
    state.v8 = CompactMoments(stream, *state.set->table, in_host_memory);
  } else {
    state.m = take();
    state.v = take();
  }
  if (state.masters) state.own_master = take();
}

void ShareStateStream(const Stream& stream, std::span<Optimizer::SetState> sets) {
  int64_t most = 0;
  StateForm form;
  for (const Optimizer::SetState& state : sets) {
    most = std::max(most, state.in_8_bits ? state.set->flat.elements() : state.kept_elements());
    form = {.masters = state.masters, .in_8_bits = state.in_8_bits};
  }
  const auto through = std::make_shared<StateStream>(stream, most, form);
  for (Optimizer::SetState& state : sets) state.through = through;
}

void UpdateOffloadedRun(Optimizer::SetState& state, const Optimizer::SetState::KeptRun& run,
                        const kernels::AdamwOptions& adamw) {
  StateStream& through = *state.through;
  const FlatBuffer& flat = state.set->flat;
  const auto* decays = static_cast<const uint8_t*>(state.decay_mask.data());
  const bool own = state.has_own_master();
  for (int64_t first = 0; first < run.end - run.begin; first += through.piece()) {
    const int64_t n = std::min(through.piece(), run.end - run.begin - first);
    const Optimizer::SetState::KeptRun piece{.begin = run.begin + first,
                                             .end = run.begin + first + n,
                                             .place = run.place + first,
                                             .at = run.at + first};
    std::vector<Part> parts = {Floats(state.m, piece.at, n), Floats(state.v, piece.at, n)};
    if (own) parts.push_back(Floats(state.own_master, piece.at, n));
    through.Through(parts, [&](const StateStream::Addresses& at) {
      kernels::Call(
          {.stream = flat.stream(), .dtype = flat.dtype()},
          kernels::AdamwUpdate{.master = own ? static_cast<float*>(at[2]) : state.master(piece),
                               .m = static_cast<float*>(at[0]),
                               .v = static_cast<float*>(at[1]),
                               .grad = state.gradient(piece),
                               .grad_dtype = state.grad.dtype(),
                               .decay_mask = decays + piece.place / kernels::kDecayBlock,
                               .n = n,
                               .options = adamw,
                               .param = own ? state.weights(piece) : nullptr});
    });
  }
}

void UpdateOffloadedCompact(Optimizer::SetState& state, uint32_t set, uint64_t seed,
                            uint32_t draw_step, const kernels::AdamwOptions& adamw) {
  StateStream& through = *state.through;
  FlatBuffer& flat = state.set->flat;
  const bool own = state.has_own_master(), is_float = flat.dtype() == DType::kFloat32;
  const auto& entries = state.set->table->entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto& entry = entries[i];
    const auto moment = [&](FlatBuffer& exact, CompactMoments& compact) {
      return !state.in_8_bits ? kernels::MomentState{.exact = exact.f32() + entry.offset}
                              : compact.Of(i);
    };
    const kernels::MomentState m = moment(state.m, state.m8), v = moment(state.v, state.v8);
    for (int64_t first = 0; first < entry.elements; first += through.piece()) {
      const int64_t n = std::min(through.piece(), entry.elements - first),
                    place = entry.offset + first;
      std::vector<Part> parts;
      AddMoment(m, first, n, parts);
      AddMoment(v, first, n, parts);
      if (own) parts.push_back(Floats(state.own_master, place, n));
      through.Through(parts, [&](const StateStream::Addresses& at) {
        size_t next = 0;
        const kernels::MomentState m_here = MomentAt(m, at, next), v_here = MomentAt(v, at, next);
        float* master = nullptr;
        if (own) master = static_cast<float*>(at[next]);
        else if (is_float) master = flat.f32() + place;
        kernels::Call({.stream = flat.stream(), .dtype = flat.dtype()},
                      kernels::AdamwCompact{.param = is_float ? nullptr : flat.at(place),
                                            .master = master,
                                            .m = m_here,
                                            .v = v_here,
                                            .grad = state.grad.at(place),
                                            .grad_dtype = state.grad.dtype(),
                                            .decay = entry.decay,
                                            .n = n,
                                            .options = adamw,
                                            .seed = seed,
                                            .set = set,
                                            .draw_step = draw_step,
                                            .first = place});
      });
    }
  }
}

}  // namespace plumb::learner
