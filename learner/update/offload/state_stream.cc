#include "learner/update/offload/state_stream.h"

#include <algorithm>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
#include "kernels/update/adamw_compact.h"

namespace plumb::learner {
namespace {

constexpr int64_t kAlign = 256;  // bytes: whatever a kernel reads as a vector is aligned
constexpr int64_t kLeastPiece = 4096, kMostPiece = int64_t{1} << 22;
static_assert(kLeastPiece % kernels::kMomentBlock == 0);
static_assert(kernels::kMomentBlock % kernels::kDecayBlock == 0);

int64_t Aligned(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

int64_t BytesOfRoom(int64_t piece, StateForm form) {
  constexpr auto kFloat = int64_t{sizeof(float)};
  const int64_t moment = form.in_8_bits
                             ? Aligned(piece) + Aligned(kernels::MomentBlocks(piece) * kFloat)
                             : Aligned(piece * kFloat);
  return 2 * moment + (form.masters ? Aligned(piece * kFloat) : 0);
}

}  // namespace

int64_t StateStream::PieceElements(int64_t elements) {
  const int64_t blocks = kernels::MomentBlocks((elements + 7) / 8);
  return std::clamp(blocks * kernels::kMomentBlock, kLeastPiece, kMostPiece);
}

int64_t StateStream::RoomBytes(int64_t elements, StateForm form) {
  return 2 * BytesOfRoom(PieceElements(elements), form);
}

StateStream::StateStream(const Stream& stream, int64_t elements, StateForm form)
    : stream_(stream),
      piece_(PieceElements(elements)),
      in_(stream.device()),
      out_(stream.device()),
      begun_(stream.device()),
      rooms_{Room{{},
                  kernels::StreamMark(stream.device()),
                  kernels::StreamMark(stream.device()),
                  kernels::StreamMark(stream.device())},
             Room{{},
                  kernels::StreamMark(stream.device()),
                  kernels::StreamMark(stream.device()),
                  kernels::StreamMark(stream.device())}} {
  for (Room& room : rooms_) {
    room.memory = policy_model::FlatBuffer(stream, DType::kInt32, BytesOfRoom(piece_, form) / 4);
  }
}

void StateStream::Begin() {
  begun_.Set(stream_);
  begun_.LetWait(in_);
}

void StateStream::End() {
  for (const Room& room : rooms_) room.stored.LetWait(stream_);
}

void StateStream::Through(std::span<const Part> parts,
                          const std::function<void(const Addresses& at)>& work) {
  PLUMB_CHECK(parts.size() <= kMostParts);
  Room& room = rooms_[next_];
  next_ = 1 - next_;
  Addresses at = {};
  int64_t end = 0;
  room.stored.LetWait(in_);  // what lay here before has gone back
  for (size_t i = 0; i < parts.size(); ++i) {
    at[i] = static_cast<std::byte*>(room.memory.data()) + end;
    end = Aligned(end + static_cast<int64_t>(parts[i].bytes));
    PLUMB_CHECK(end <= static_cast<int64_t>(room.memory.bytes()), "a piece larger than a room");
    kernels::Copy(in_, at[i], parts[i].host, parts[i].bytes);
  }
  room.loaded.Set(in_);
  room.loaded.LetWait(stream_);
  work(at);
  room.worked.Set(stream_);
  room.worked.LetWait(out_);
  for (size_t i = 0; i < parts.size(); ++i)
    kernels::Copy(out_, parts[i].host, at[i], parts[i].bytes);
  room.stored.Set(out_);
}

}  // namespace plumb::learner
