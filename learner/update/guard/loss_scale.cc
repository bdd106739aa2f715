#include "learner/update/guard/loss_scale.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

constexpr double kUp = 2, kDown = 4, kLeast = 1;

}  // namespace

LossScale::LossScale(double largest, int64_t steps)
    : largest_(largest), steps_(steps), state_{.scale = largest} {
  int exponent = 0;
  PLUMB_CHECK(largest >= kLeast && std::frexp(largest, &exponent) == 0.5 && steps >= 1,
              "optimizer.loss_scale was validated");
}

void LossScale::Restore(const State& state) {
  if (!on()) return;
  state_ = state.scale > 0 ? state : State{.scale = largest_};
  state_.scale = std::min(state_.scale, largest_);
}

void LossScale::Passed() {
  if (++state_.steps < steps_) return;
  state_ = {.scale = std::min(kUp * state_.scale, largest_)};
}

void LossScale::Overflowed() {
  if (state_.scale < kDown * kLeast) {
    throw Error(ErrorCode::kNonFinite,
                "gradients are not finite at a scale of the loss of " +
                    std::to_string(static_cast<int64_t>(state_.scale)) +
                    ", below which it makes none larger: numbers of the model do not fit float16 "
                    "(65504 at most), or the run diverges. Nothing of the update was applied; "
                    "resume with model.products = \"dtype\", or with a lower learning rate",
                "model.products");
  }
  state_ = {.scale = state_.scale / kDown};
}

}  // namespace plumb::learner
