// The optimizer's state on its way: from the host's memory through two rooms on the device, where
// an update works on it, and back.
//
// Purpose: optimizer.offload keeps moments and masters in page-locked memory of the host. An update
// goes through them piece by piece: while it works on one piece the next comes in and the one
// before goes back, each on a stream of its own, so that what it takes is about what one direction
// of the link takes. On the CPU the same steps are done one after the other, with the same results.
// Thread safety: one thread. Ownership: owns rooms and streams; the state is the caller's. Units:
// elements and bytes. Errors: those of copies and kernels (kIo).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "kernels/device/stream.h"
#include "kernels/device/stream_mark.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::learner {

// What is kept of an element.
struct StateForm {
  bool masters = false;    // in the host's memory
  bool in_8_bits = false;  // moments
};

class StateStream {
 public:
  // Of so many elements that are kept, how many go through a room at a time: an eighth, within
  // bounds; a multiple of a block of moments and of decays.
  static int64_t PieceElements(int64_t elements);
  // What both rooms take of the device.
  static int64_t RoomBytes(int64_t elements, StateForm form);

  // For sets of which the largest keeps so many elements, in this form.
  StateStream(const Stream& stream, int64_t elements, StateForm form);

  int64_t piece() const { return piece_; }

  // Bytes in the host's memory.
  struct Part {
    void* host = nullptr;
    size_t bytes = 0;
  };
  static constexpr size_t kMostParts = 5;  // codes and scales of two moments, and a master
  using Addresses = std::array<void*, kMostParts>;

  // Before the first piece of an update, and behind its last: what `stream` does next sees all of
  // them as they are now.
  void Begin();
  void End();
  // Brings the parts to the device, calls `work` with where they lie there, in their order, and
  // takes them back. `work` enqueues on the stream and keeps no address. REQUIRES: no more
  // than a room holds.
  void Through(std::span<const Part> parts, const std::function<void(const Addresses& at)>& work);

 private:
  struct Room {
    policy_model::FlatBuffer memory;
    kernels::StreamMark loaded, worked, stored;
  };
  Stream stream_;
  int64_t piece_;
  OwnedStream in_, out_;
  kernels::StreamMark begun_;
  std::array<Room, 2> rooms_;
  size_t next_ = 0;
};

}  // namespace plumb::learner
