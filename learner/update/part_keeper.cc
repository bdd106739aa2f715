#include "learner/update/part_keeper.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
#include "kernels/embedding.h"
#include "kernels/update/adamw.h"
#include "learner/update/rank_memory.h"

namespace plumb::learner {

using policy_model::FlatBuffer;

namespace {

constexpr size_t kLayerRooms = 2, kHeadRoom = 2, kEmbeddingRoom = 3;

// "layers.3." of a tensor of a layer; "embedding"; else "", which is the head's.
std::string_view BucketName(std::string_view tensor) {
  if (tensor == "embedding") return tensor;
  if (!tensor.starts_with("layers.")) return "";
  return tensor.substr(0, tensor.find('.', 7) + 1);
}

}  // namespace

std::vector<int64_t> BucketEnds(const policy_model::ParameterSet& set) {
  std::vector<int64_t> ends;
  const auto& entries = set.table->entries();
  for (size_t i = 1; i < entries.size() && !set.adapter; ++i) {
    if (BucketName(entries[i].name) != BucketName(entries[i - 1].name))
      ends.push_back(entries[i].offset);
  }
  ends.push_back(set.flat.elements());
  return ends;
}

int64_t RoomElements(const std::vector<int64_t>& ends) {
  int64_t largest = 0;
  for (size_t i = 1; i + 1 < ends.size(); ++i) largest = std::max(largest, ends[i] - ends[i - 1]);
  if (ends.size() < 2) return ends.back();
  return static_cast<int64_t>(kLayerRooms) * largest + ends.front() +
         (ends.back() - ends[ends.size() - 2]);
}

PartKeeper::PartKeeper(Optimizer::SetState& state, const Sharing& sharing)
    : state_(state),
      ranks_(*sharing.ranks),
      wire_(sharing.wire),
      layers_(static_cast<int64_t>(state.partition.buckets()) - 2),
      stream_(state.set->flat.stream()),
      here_(stream_.device()) {
  PLUMB_CHECK(layers_ > 0 && !state.set->adapter && state.grad_in_parts, "a base of layers");
  if (stream_.device().is_cpu()) courier_ = std::make_unique<Courier>();
  else beside_.emplace(stream_.device());
}

PartKeeper::~PartKeeper() = default;

size_t PartKeeper::BucketOf(int64_t layer) const { return static_cast<size_t>(layers_ - layer); }

void PartKeeper::Furnish(Rooms& rooms, DType dtype) {
  if (rooms[0].memory.elements() > 0) return;
  int64_t largest = 1;
  for (size_t bucket = 1; bucket < last_bucket(); ++bucket)
    largest = std::max(largest, state_.partition.Bucket(bucket).size());
  for (size_t i = 0; i < kLayerRooms; ++i) rooms[i].memory = FlatBuffer(stream_, dtype, largest);
  rooms[kHeadRoom].bucket = 0;
  rooms[kEmbeddingRoom].bucket = last_bucket();
  for (const size_t i : {kHeadRoom, kEmbeddingRoom}) {
    rooms[i].memory = FlatBuffer(
        stream_, dtype, std::max<int64_t>(1, state_.partition.Bucket(rooms[i].bucket).size()));
  }
  for (Room& room : rooms) room.done = kernels::StreamMark(stream_.device());
}

void PartKeeper::Post(Room& room, std::function<void(const Stream& stream)> job) {
  if (courier_) {
    room.ticket = courier_->Post([this, job = std::move(job)] { job(stream_); });
    return;
  }
  // What the job reads has been computed by then, and what it writes to is no longer read.
  here_.Set(stream_);
  here_.LetWait(*beside_);
  job(*beside_);
  room.done.Set(*beside_);
}

void PartKeeper::Wait(const Room& room) {
  if (courier_) courier_->Wait(room.ticket);
  else room.done.LetWait(stream_);
}

void PartKeeper::Reduce(size_t bucket, float* gradients, const Stream& stream) {
  const Slice all = state_.partition.Bucket(bucket),
              own = state_.partition.Of(bucket, ranks_.rank());
  if (all.size() == 0) return;
  const auto n = static_cast<size_t>(all.size());
  std::span<float> residual;
  if (state_.residual.elements() > 0) residual = {state_.residual.f32() + all.begin, n};
  ReduceScatter(ranks_, stream, {gradients, n}, state_.partition.unit(), wire_, residual);
  const float* from = gradients + (own.begin - all.begin);
  float* const to = state_.grad.f32() + state_.kept[bucket].at;
  if (stream.device().is_cpu()) {
    for (int64_t i = 0; i < own.size(); ++i) to[i] += from[i];
  } else if (own.size() > 0) {
    kernels::Call({.stream = stream, .dtype = DType::kFloat32},
                  kernels::AddScaled{.x = from, .n = own.size(), .y = to});
  }
  kernels::Zero(stream, gradients, n * sizeof(float));  // the next layer adds
}

void PartKeeper::GatherInto(size_t bucket, void* weights, const Stream& stream) {
  const Slice all = state_.partition.Bucket(bucket),
              own = state_.partition.Of(bucket, ranks_.rank());
  if (all.size() == 0) return;
  const auto element = static_cast<int64_t>(ElementSize(state_.set->flat.dtype()));
  std::vector<Slice> places;
  for (int rank = 0; rank < ranks_.size(); ++rank) {
    const Slice of = state_.partition.Of(bucket, rank);
    places.push_back(
        {.begin = (of.begin - all.begin) * element, .end = (of.end - all.begin) * element});
  }
  auto* const bytes = static_cast<std::byte*>(weights);
  kernels::Copy(stream, bytes + (own.begin - all.begin) * element,
                state_.own_weights.at(state_.kept[bucket].at),
                static_cast<size_t>(own.size() * element));
  AllGather(ranks_, stream, {bytes, static_cast<size_t>(all.size() * element)}, places);
}

void PartKeeper::PostGather(Room& room, size_t bucket) {
  room.bucket = bucket;
  Post(room, [this, bucket, to = room.memory.data()](const Stream& stream) {
    GatherInto(bucket, to, stream);
  });
}

void PartKeeper::PostReduce(Room& room) {
  room.open = false;
  Post(room, [this, bucket = room.bucket, from = room.memory.f32()](const Stream& stream) {
    Reduce(bucket, from, stream);
  });
}

void PartKeeper::Begin(Way way) {
  for (Rooms* rooms : {&weights_, &gradients_}) {
    for (Room& room : *rooms) room.open = false;
  }
  const int64_t first = way == Way::kForward ? 0 : layers_ - 1;
  if (spread_) {
    Furnish(weights_, state_.set->flat.dtype());
    for (const size_t i : {kHeadRoom, kEmbeddingRoom}) PostGather(weights_[i], weights_[i].bucket);
    PostGather(weights_[static_cast<size_t>(first) % kLayerRooms], BucketOf(first));
    for (const size_t i : {kHeadRoom, kEmbeddingRoom}) {
      Wait(weights_[i]);
      weights_[i].open = true;
    }
  }
  if (way == Way::kForward) return;
  Furnish(gradients_, DType::kFloat32);
  for (const size_t i : {kHeadRoom, kEmbeddingRoom}) gradients_[i].open = true;
}

void PartKeeper::Enter(Way way, int64_t layer) {
  const int64_t next = way == Way::kForward ? layer + 1 : layer - 1;
  if (spread_) {
    Room& room = weights_[static_cast<size_t>(layer) % kLayerRooms];
    Wait(room);
    room.open = true;
    if (next >= 0 && next < layers_)
      PostGather(weights_[static_cast<size_t>(next) % kLayerRooms], BucketOf(next));
  }
  if (way == Way::kForward) return;
  // The head's are complete; where it is the embedding, those stay.
  if (gradients_[kHeadRoom].open) PostReduce(gradients_[kHeadRoom]);
  Room& room = gradients_[++turn_ % kLayerRooms];
  Wait(room);
  room.bucket = BucketOf(layer);
  room.open = true;
}

void PartKeeper::Leave(Way way, int64_t layer) {
  if (spread_) weights_[static_cast<size_t>(layer) % kLayerRooms].open = false;
  if (way == Way::kBackward) PostReduce(gradients_[turn_ % kLayerRooms]);
}

void PartKeeper::End(Way way) {
  for (Room& room : weights_) room.open = false;
  if (way == Way::kForward) return;
  PostReduce(gradients_[kEmbeddingRoom]);
  if (courier_) courier_->WaitAll();  // before the rank talks to the others itself
  for (const Room& room : gradients_) Wait(room);
}

const PartKeeper::Room* PartKeeper::Find(const Rooms& rooms, int64_t place) const {
  for (const Room& room : rooms) {
    if (!room.open) continue;
    const Slice of = state_.partition.Bucket(room.bucket);
    if (place >= of.begin && place < of.end) return &room;
  }
  return nullptr;
}

const void* PartKeeper::Weight(int64_t offset) const {
  if (!spread_) return state_.set->flat.at(offset);
  const Room* const room = Find(weights_, offset);
  PLUMB_CHECK(room, "a pass reads weights of a layer that it is not in");
  return room->memory.at(offset - state_.partition.Bucket(room->bucket).begin);
}

float* PartKeeper::Gradient(int64_t offset) const {
  const int64_t place = policy_model::PlaceOf(state_.runs, offset);
  if (place < 0) return nullptr;
  const Room* const room = Find(gradients_, place);
  PLUMB_CHECK(room, "a pass writes gradients of a layer that it is not in");
  return const_cast<float*>(room->memory.f32()) +
         (place - state_.partition.Bucket(room->bucket).begin);
}

void PartKeeper::Spread() {
  if (spread_) return;
  FlatBuffer& flat = state_.set->flat;
  PLUMB_CHECK(state_.trained() == flat.elements(), "all of the set is trained");
  FlatBuffer own(stream_, flat.dtype(), std::max<int64_t>(1, state_.kept_elements()));
  const size_t element = ElementSize(flat.dtype());
  for (const Piece& piece : state_.kept) {
    kernels::Copy(stream_, own.at(piece.at), flat.at(piece.begin),
                  static_cast<size_t>(piece.size()) * element);
  }
  stream_.Synchronize();
  state_.own_weights = std::move(own);
  flat = FlatBuffer::WithoutMemory(stream_, flat.dtype(), flat.elements());
  spread_ = true;
}

void PartKeeper::Gather() {
  if (!spread_) return;
  weights_ = {};  // their memory is needed for the whole
  FlatBuffer flat(stream_, state_.set->flat.dtype(), state_.trained());
  for (size_t bucket = 0; bucket < state_.partition.buckets(); ++bucket)
    GatherInto(bucket, flat.at(state_.partition.Bucket(bucket).begin), stream_);
  stream_.Synchronize();
  state_.set->flat = std::move(flat);
  state_.own_weights = {};
  spread_ = false;
}

}  // namespace plumb::learner
