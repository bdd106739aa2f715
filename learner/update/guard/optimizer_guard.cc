// What keeps numbers that are not finite out of the weights, and what an optimizer tells of it.
#include "common/base/error.h"
#include "learner/update/optimizer.h"

namespace plumb::learner {

UpdateResult Optimizer::Skip(UpdateResult result, bool overflow, bool loss_is_finite) {
  // Nor does what was lost of it come back, nor what experts waited with.
  for (SetState& state : sets_) {
    ZeroExperts(state, /*experts=*/true);
    if (state.residual.elements() > 0) state.residual.Zero();
  }
  ++skipped_;
  if (overflow) loss_scale_.Overflowed();
  PrepareGradients();
  // With a smaller scale the next one is tried; there is an end to that.
  if (overflow && loss_is_finite) return result;
  const configs::OptimizerConfig& options = options_;
  if (++skipped_in_a_row_ >= options.max_skipped_in_a_row) {
    throw Error(ErrorCode::kNonFinite,
                std::to_string(skipped_in_a_row_) + " updates in a row were skipped because " +
                    result.why_skipped +
                    ", and they changed nothing: resume with a lower learning rate. Where that is "
                    "not finite again, the update before them broke the weights: go on from an "
                    "older checkpoint, or begin anew with --overwrite" +
                    (loss_scale_.on() ? ", or try model.products = \"dtype\": float16 holds no "
                                        "activation above 65504"
                                      : ""),
                "optimizer");
  }
  return result;
}

void Optimizer::AddMetrics(const std::string& of, std::map<std::string, double>& metrics) {
  if (const auto clipped = TakeClippedShare()) metrics["optim/" + of + "clipped_share"] = *clipped;
  if (loss_scale_.on()) metrics["optim/" + of + "loss_scale"] = loss_scale_.scale();
}

}  // namespace plumb::learner
