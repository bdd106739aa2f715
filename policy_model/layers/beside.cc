#include "policy_model/layers/beside.h"

#include <algorithm>

namespace plumb::policy_model {

Beside::Beside(const Stream& pass)
    : pass_(pass),
      own_(pass.device()),
      ahead_(pass.device()),
      all_(pass.device()),
      readers_{Reader{nullptr, kernels::StreamMark(pass.device())},
               Reader{nullptr, kernels::StreamMark(pass.device())},
               Reader{nullptr, kernels::StreamMark(pass.device())},
               Reader{nullptr, kernels::StreamMark(pass.device())}} {}

Stream Beside::Begin() {
  ahead_.Set(pass_);
  ahead_.LetWait(own_);
  return own_;
}

void Beside::End(const void* dy) {
  Reader& reader = readers_[static_cast<size_t>(ended_++ % kReaders)];
  reader.dy = dy;
  reader.done.Set(own_);
}

void Beside::Release(const void* dy) {
  // They go one after the other: behind the last of them is behind all that read it.
  for (int64_t i = ended_; i-- > std::max<int64_t>(0, ended_ - kReaders);) {
    const Reader& reader = readers_[static_cast<size_t>(i % kReaders)];
    if (reader.dy == dy) return reader.done.LetWait(pass_);
  }
  if (ended_ > kReaders) Join();  // it may be one that is not told apart any more
}

void Beside::Join() {
  if (ended_ == 0) return;
  all_.Set(own_);
  all_.LetWait(pass_);
  ended_ = 0;
}

}  // namespace plumb::policy_model
