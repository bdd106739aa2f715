#include "learner/update/stages/pipeline.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
#include "learner/update/rank_memory.h"

namespace plumb::learner {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace

Pipeline::Pipeline(Ranks& stages, const Stream& stream, DType dtype, int64_t hidden, int64_t vocab)
    : stages_(stages), stream_(stream), dtype_(dtype), hidden_(hidden), vocab_(vocab) {
  // From the first pair to the last: a stage meets the one below before the one above.
  const auto meet = [&](Neighbour& with, int lower) {
    const std::array<int, 2> both = {lower, lower + 1};
    with.ranks = stages_.Among(both);
    with.below = lower < stage();
    MeetOnDevice(*with.ranks, stream_);
  };
  if (stage() > 0) meet(below_, stage() - 1);
  if (!last()) meet(above_, stage());
}

void Pipeline::Use(policy_model::Transformer& transformer, bool recompute) {
  slots_.clear();
  made_.clear();
  recompute_ = recompute;
  slots_.push_back(std::make_unique<PassSlot>());
  slots_[0]->transformer = &transformer;
  slot(0);
}

PassSlot& Pipeline::slot(size_t i) {
  PLUMB_CHECK(!slots_.empty(), "a pipeline has been told its transformer");
  while (slots_.size() <= i) {
    made_.push_back(std::make_unique<policy_model::Transformer>(slots_[0]->transformer->shape(),
                                                                stream_, dtype_));
    made_.back()->RecomputeLayers(recompute_);
    slots_.push_back(std::make_unique<PassSlot>());
    slots_.back()->transformer = made_.back().get();
  }
  PassSlot& out = *slots_[i];
  out.ends.first = stage() == 0;
  out.ends.last = last();
  out.ends.vocab = vocab_;
  return out;
}

const void* Pipeline::Swap(Neighbour& with, const void* sent, int64_t send, int64_t receive) {
  if (!with.ranks || send + receive == 0) return nullptr;
  const auto element = static_cast<int64_t>(ElementSize(dtype_));
  if (with.room.elements() * element < send + receive)
    with.room = policy_model::FlatBuffer(stream_, dtype_, (send + receive) / element);
  auto* const all = static_cast<std::byte*>(with.room.data());
  const int64_t lower = with.below ? receive : send;
  const std::array<Slice, 2> places = {Slice{.begin = 0, .end = lower},
                                       Slice{.begin = lower, .end = send + receive}};
  std::byte *const own = all + (with.below ? lower : 0), *const theirs =
                                                             all + (with.below ? 0 : lower);
  if (send > 0) kernels::Copy(stream_, own, sent, static_cast<size_t>(send));
  const auto begin = Clock::now();
  AllGather(*with.ranks, stream_, {all, static_cast<size_t>(send + receive)}, places);
  if (stream_.device().is_cpu()) waited_ += SecondsSince(begin);
  return theirs;
}

void Pipeline::Run(size_t n, const Parts& parts) {
  const bool both = static_cast<bool>(parts.backward);
  const size_t behind = static_cast<size_t>(stages() - 1 - stage()),
               ahead = both ? std::min(n, behind) : 0;
  const auto at = [&](size_t i) -> PassSlot& { return slot(i % (ahead + 1)); };
  bytes_.assign(n, 0);
  const auto pack = [&](size_t i) {
    parts.pack(at(i), i);
    bytes_[i] = at(i).batch.size() * hidden_ * static_cast<int64_t>(ElementSize(dtype_));
  };
  const auto forward = [&](size_t i, const void* input) {
    at(i).ends.input = input;
    parts.forward(at(i), i);
  };
  const auto backward = [&](size_t i, const void* gradient) {
    at(i).ends.output_gradient = gradient;
    parts.backward(at(i), i);
  };
  // Forwards alone: of all, or until every stage above has work.
  for (size_t i = 0; i < (both ? ahead : n); ++i) {
    pack(i);
    forward(i, Swap(below_, nullptr, 0, bytes_[i]));
    Swap(above_, at(i).ends.output, bytes_[i], 0);
  }
  if (!both) return;
  const void* input = nullptr;
  if (ahead < n) {
    pack(ahead);
    input = Swap(below_, nullptr, 0, bytes_[ahead]);
  }
  for (size_t i = ahead; i < n; ++i) {
    forward(i, input);
    const size_t done = i - ahead;
    backward(done, Swap(above_, at(i).ends.output, bytes_[i], bytes_[done]));
    const void* const gradient = at(done).ends.input_gradient;
    if (i + 1 < n) pack(i + 1);  // in the slot that is free now
    input = Swap(below_, gradient, bytes_[done], i + 1 < n ? bytes_[i + 1] : 0);
  }
  for (size_t i = n - ahead; i < n; ++i) {
    backward(i, Swap(above_, nullptr, 0, bytes_[i]));
    Swap(below_, at(i).ends.input_gradient, bytes_[i], 0);
  }
}

void Pipeline::ShareLast(std::span<float> numbers) {
  const auto begin = Clock::now();
  std::vector<Slice> places(static_cast<size_t>(stages()));
  places.back() = {.begin = 0, .end = static_cast<int64_t>(numbers.size_bytes())};
  if (!numbers.empty()) stages_.AllGather(std::as_writable_bytes(numbers), places);
  waited_ += SecondsSince(begin);
}

double Pipeline::TakeWaited() { return std::exchange(waited_, 0); }

}  // namespace plumb::learner
