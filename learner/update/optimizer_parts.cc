// What an optimizer does where ranks share it: who keeps what, sums over gradients, weights that
// come back, and reading parts as a whole.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "kernels/update/adamw.h"
#include "learner/update/gradients/fresh_gradients.h"
#include "learner/update/gradients/gradient_rooms.h"
#include "learner/update/optimizer.h"
#include "learner/update/part_keeper.h"
#include "learner/update/rank_memory.h"
#include "learner/update/shares/model_share.h"

namespace plumb::learner {

using policy_model::FlatBuffer;
using policy_model::TrainedRun;

namespace {

constexpr auto kFloat = int64_t{sizeof(float)};

// Elements of the set that are trained and lie before `element`.
int64_t TrainedBefore(std::span<const TrainedRun> runs, int64_t element) {
  int64_t n = 0;
  for (const TrainedRun& run : runs) n += std::clamp(element, run.begin, run.end) - run.begin;
  return n;
}

Slice Overlap(const Slice& of, int64_t begin, int64_t end) {
  const int64_t first = std::clamp(of.begin, begin, end);
  return {.begin = first, .end = std::clamp(of.end, first, end)};
}

std::span<float> Floats(FlatBuffer& of, const Slice& slice) {
  return {of.f32() + slice.begin, static_cast<size_t>(slice.size())};
}

}  // namespace

Optimizer::~Optimizer() = default;

// Of `n` places: buckets, and what of them is kept here.
void Optimizer::Divide(SetState& state, int64_t n) {
  if (sharing_.experts.apart && !state.set->adapter) return DivideExperts(state);
  if (!sharing_.ranks) {
    state.partition = Partition({n}, 1, kernels::kDecayBlock);
    state.kept = {{.begin = 0, .end = n, .at = 0}};
    return;
  }
  state.partition = Partition(state.BucketPlaces(), sharing_.ranks->size(), kernels::kDecayBlock);
  PLUMB_CHECK(state.trained() == n);
  state.grad_in_parts = sharing_.zero > 1 && !state.set->adapter;
  state.kept = sharded() ? state.partition.KeptBy(sharing_.ranks->rank())
                         : std::vector<Piece>{{.begin = 0, .end = n, .at = 0}};
  if (sharing_.zero > 2 && !state.set->adapter && n != state.set->flat.elements()) {
    throw Error(ErrorCode::kInvalidArgument,
                "is 3, which spreads a model that is trained as a whole, and policy.frozen leaves "
                "some of it as it is: set it to 2, or leave policy.frozen out",
                "run.zero");
  }
}

std::vector<int64_t> Optimizer::SetState::BucketPlaces() const {
  std::vector<int64_t> ends;
  for (const int64_t end : BucketEnds(*set)) ends.push_back(PlacesBefore(end));
  return ends;
}

int64_t Optimizer::SetState::PlacesBefore(int64_t element) const {
  return TrainedBefore(runs, element);
}

Slice Optimizer::OwnedBy(const SetState& state, size_t bucket, int rank) const {
  Ranks* const ranks = RanksOf(state, bucket);
  const Slice all = state.partition.Bucket(bucket);
  const Slice own = SliceOf(all.size(), rank, ranks ? ranks->size() : 1, state.partition.unit());
  return {.begin = all.begin + own.begin, .end = all.begin + own.end};
}

Optimizer::SetState::KeptRun Optimizer::SetState::KeptOf(const TrainedRun& run,
                                                         const Piece& piece) const {
  const Slice part =
      Overlap({.begin = piece.begin, .end = piece.end}, run.at, run.at + run.end - run.begin);
  if (part.size() == 0) return {};
  return {.begin = run.begin + part.begin - run.at,
          .end = run.begin + part.end - run.at,
          .place = part.begin,
          .at = piece.at + part.begin - piece.begin};
}

void Optimizer::ReadKept(const SetState& state, const FlatBuffer& buffer, int64_t place,
                         std::span<std::byte> out) const {
  // These have room for all places.
  const bool residual = &buffer == &state.residual || &buffer == &state.grad;
  if (!sharing_.ranks || !(residual || sharded())) return buffer.CopyToHost(out, place);
  const int64_t end = place + static_cast<int64_t>(out.size()) / kFloat;
  const auto bytes = [&](const Slice& part) {
    return Slice{.begin = (part.begin - place) * kFloat, .end = (part.end - place) * kFloat};
  };
  for (size_t bucket = 0; bucket < state.partition.buckets(); ++bucket) {
    if (Overlap(state.partition.Bucket(bucket), place, end).size() == 0) continue;
    Ranks* const ranks = RanksOf(state, bucket);
    const int own = ranks ? ranks->rank() : 0;
    std::vector<Slice> places;
    for (int rank = 0; rank < (ranks ? ranks->size() : 1); ++rank) {
      const Slice part = Overlap(OwnedBy(state, bucket, rank), place, end);
      places.push_back(bytes(part));
      if (rank != own || part.size() == 0) continue;
      const Piece& piece = state.kept[sharded() ? bucket : 0];
      const int64_t at = residual ? part.begin : piece.at + part.begin - piece.begin;
      buffer.CopyToHost(out.subspan(static_cast<size_t>(places.back().begin),
                                    static_cast<size_t>(places.back().size())),
                        at);
    }
    if (ranks) ranks->AllGather(out, places);
  }
}

void Optimizer::WriteKept(const SetState& state, FlatBuffer& buffer, int64_t place,
                          std::span<const std::byte> bytes) const {
  const int64_t end = place + static_cast<int64_t>(bytes.size()) / kFloat;
  const bool residual = &buffer == &state.residual;
  std::vector<Piece> own = state.kept;
  if (residual) {
    own.clear();
    for (size_t bucket = 0; bucket < state.partition.buckets(); ++bucket) {
      Ranks* const ranks = RanksOf(state, bucket);
      const Slice part = OwnedBy(state, bucket, ranks ? ranks->rank() : 0);
      own.push_back({.begin = part.begin, .end = part.end, .at = 0});
    }
  }
  for (const Piece& piece : own) {
    const Slice part = Overlap({.begin = piece.begin, .end = piece.end}, place, end);
    if (part.size() == 0) continue;
    buffer.CopyFromHost(bytes.subspan(static_cast<size_t>((part.begin - place) * kFloat),
                                      static_cast<size_t>(part.size() * kFloat)),
                        residual ? part.begin : piece.at + part.begin - piece.begin);
  }
}

std::vector<std::span<float>> Optimizer::KeptGradients(
    SetState& state, const policy_model::TensorEntry& entry) const {
  std::vector<std::span<float>> out;
  if (const int64_t place = state.PlaceOf(entry); place >= 0) {
    const TrainedRun all{.begin = entry.offset, .end = entry.offset + entry.elements, .at = place};
    for (const Piece& piece : state.kept) {
      const SetState::KeptRun run = state.KeptOf(all, piece);
      if (run.begin == run.end) continue;
      float* const first = state.grad.f32() + (state.grad_in_parts ? run.at : run.place);
      out.emplace_back(first, static_cast<size_t>(run.end - run.begin));
    }
  }
  return out;
}

void Optimizer::AddUpGradients() {
  for (SetState& state : sets_) {
    if (!sharing_.keeps_residuals() && state.residual.elements() > 0) {
      // Of a checkpoint whose gradients had travelled rounded: made up for now. Each rank has read
      // what it owns.
      for (const Piece& piece : state.kept) {
        const int64_t at = state.grad_in_parts ? piece.at : piece.begin;
        const float* const left = state.residual.f32() + piece.begin;
        const float scale = gradients_.loss_scale;
        if (state.grad.dtype() == DType::kBFloat16) {
          auto* const to = static_cast<BFloat16*>(state.grad.at(at));
          for (int64_t i = 0; i < piece.size(); ++i)
            to[i] = ToBFloat16(ToFloat(to[i]) + scale * left[i]);
          continue;
        }
        float* const to = state.grad.f32() + at;
        for (int64_t i = 0; i < piece.size(); ++i) to[i] += scale * left[i];
      }
      state.residual = {};
    }
    if (!state.of_experts.empty()) {
      AddUpApart(state);
      continue;
    }
    if (!sharing_.ranks || state.grad_in_parts) continue;  // those were added up by the backward
    Ranks& ranks = *sharing_.ranks;
    const Stream& stream = state.grad.stream();
    const bool keeps = state.residual.elements() > 0;
    const auto residual = [&](const Slice& slice) {
      return keeps ? Floats(state.residual, slice) : std::span<float>();
    };
    if (!sharded()) {
      const Slice all{.begin = 0, .end = state.trained()};
      AllReduce(ranks, stream, Floats(state.grad, all), sharing_.wire, residual(all));
      continue;
    }
    for (size_t bucket = 0; bucket < state.partition.buckets(); ++bucket) {
      const Slice slice = state.partition.Bucket(bucket);
      ReduceScatter(ranks, stream, Floats(state.grad, slice), state.partition.unit(), sharing_.wire,
                    residual(slice));
    }
  }
  if (!sharing_.share) return;
  for (SetState& state : sets_) {
    for (const policy_model::TensorEntry& entry : state.set->table->entries()) {
      Ranks* const ranks = sharing_.share->SummandsOf(entry);
      if (!ranks) continue;
      for (const std::span<float> part : KeptGradients(state, entry))
        AllReduce(*ranks, state.grad.stream(), part, Wire::kFloat32, {});
    }
  }
}

void Optimizer::FoldResiduals() {
  FoldWaiting();
  if (!sharing_.keeps_residuals()) return;
  for (SetState& state : sets_) {
    for (size_t bucket = 0; bucket < state.partition.buckets(); ++bucket) {
      const Slice all = state.partition.Bucket(bucket),
                  own = state.partition.Of(bucket, sharing_.ranks->rank());
      const std::span<float> left = Floats(state.residual, all);
      sharing_.ranks->ReduceScatter(left, state.partition.unit());
      std::fill(left.begin(), left.begin() + (own.begin - all.begin), 0.0f);
      std::fill(left.begin() + (own.end - all.begin), left.end(), 0.0f);
    }
  }
}

// Each rank has updated its part.
void Optimizer::ShareUpdated(SetState& state) {
  if (state.own_weights.elements() > 0) return;  // every pass gathers them anew
  FlatBuffer& flat = state.set->flat;
  const auto size = static_cast<int64_t>(ElementSize(flat.dtype()));
  for (size_t bucket = 0; bucket < state.partition.buckets(); ++bucket) {
    Ranks* const ranks = RanksOf(state, bucket);
    if (!ranks || !Due(state, bucket)) continue;
    for (const TrainedRun& run : state.runs) {
      const int64_t end = run.at + run.end - run.begin;
      const Slice all = Overlap(state.partition.Bucket(bucket), run.at, end);
      if (all.size() == 0) continue;
      std::vector<Slice> places;
      for (int rank = 0; rank < ranks->size(); ++rank) {
        const Slice part = Overlap(state.partition.Of(bucket, rank), all.begin, all.end);
        places.push_back(
            {.begin = (part.begin - all.begin) * size, .end = (part.end - all.begin) * size});
      }
      AllGather(*ranks, flat.stream(),
                {static_cast<std::byte*>(flat.at(run.begin + all.begin - run.at)),
                 static_cast<size_t>(all.size() * size)},
                places);
    }
  }
}

policy_model::PassParts* Optimizer::parts() const {
  if (rooms_) return rooms_.get();
  if (fresh_) return fresh_.get();
  return keeper_.get();
}

void Optimizer::Settle() {
  if (fresh_) fresh_->Settle();
}

void Optimizer::SpreadWeights() {
  if (sharing_.share) sharing_.share->Spread();
  if (keeper_ && sharing_.zero > 2) keeper_->Spread();
}

void Optimizer::GatherWeights() {
  if (keeper_) keeper_->Gather();
  if (sharing_.share && !sharing_.share->fresh()) sharing_.share->Gather();
}

bool Optimizer::weights_spread() const {
  return (keeper_ && keeper_->spread()) || (sharing_.share && sharing_.share->spread());
}

void Optimizer::TakeLoaded() {
  if (sharing_.share) sharing_.share->Take();
}

void Optimizer::CheckShare(const std::string& what) const {
  ModelShare* const share = sharing_.share;
  if (!share || (keeper_ && keeper_->spread())) return;
  Ranks* const alike = sharing_.experts.apart ? sharing_.experts.ranks : sharing_.ranks;
  if (alike) alike->CheckSame(what, share->weights().ComputeDigest());
  share->CheckUncut(what);
}

std::optional<Optimizer::BesideTimes> Optimizer::TakeBesideTimes() {
  if (!keeper_ || !keeper_->timed()) return std::nullopt;
  const Courier::Times now = keeper_->times();
  const BesideTimes since{.busy = now.busy - taken_.busy, .waited = now.waited - taken_.waited};
  taken_ = {.busy = now.busy, .waited = now.waited};
  return since;
}

}  // namespace plumb::learner
