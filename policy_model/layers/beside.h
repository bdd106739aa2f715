// Products that nothing of a backward waits for, the gradients of weights, on a stream beside it.
//
// Purpose: such a product and the next one of the pass, or a kernel that is bound by memory, fill a
// GPU together where either leaves part of it idle. At 0.5B neither does: passes work so only where
// they are told (Transformer::WorkBeside). The same
// products as without, so the same numbers. Protocol, around a product that reads `dy` and more of
// the pass' memory: Begin, the product on its stream, End. Release(dy) before what it read as `dy`
// is written again, Join before the rest of it is. On the CPU nothing happens. Thread safety: one
// thread, that of the pass. Ownership: owns a stream and events.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/device/stream.h"
#include "kernels/device/stream_mark.h"

namespace plumb::policy_model {

class Beside {
 public:
  // Beside what is enqueued on `pass`; borrowed.
  explicit Beside(const Stream& pass);

  // Where a product goes that reads what the pass has been given so far.
  Stream Begin();
  void End(const void* dy);
  // What the pass is given from now on begins behind the products that read `dy`, or behind all.
  void Release(const void* dy);
  void Join();

 private:
  struct Reader {
    const void* dy = nullptr;
    kernels::StreamMark done;
  };
  static constexpr int64_t kReaders = 4;  // that are told apart
  const Stream pass_;
  OwnedStream own_;
  kernels::StreamMark ahead_, all_;
  std::array<Reader, kReaders> readers_;
  int64_t ended_ = 0;  // products since the last Join
};

}  // namespace plumb::policy_model
