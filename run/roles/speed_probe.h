// The speeds that a plan of time is made with (run/roles/step_time.h): measured on this machine,
// known of a card, or read from a file.
//
// Purpose: measured (of a GPU: run/roles/planning/gpu_probe.h) is what the run itself would do, a
// forward with its backward, a forward, steps of generation, an update and a digest, on a model of
// the recipe's width with one layer and with two: the difference is a layer, the rest the head.
// Each is measured several times, about five seconds in all, and the fastest counts: what else the
// machine does only makes it slower. Random weights of some seconds' life; a model whose layers are
// too large for that gets the speed of this machine's products, which is said. Thread safety: one
// thread. Errors: kInvalidArgument for a card that is not known and a file of another form.
#pragma once

#include <optional>
#include <string>

#include "common/base/dtype.h"
#include "configs/config.h"
#include "kernels/device/stream.h"
#include "policy_model/families/model_shape.h"
#include "run/roles/step_time.h"

namespace plumb::run {

// On the stream's device, with the threads of the recipe; within `most_seconds`, or kMostSeconds
// where that is less, but for what the fewest passes take.
inline constexpr double kMostSeconds = 4.5;
Speeds MeasureSpeeds(const configs::Config& config, const policy_model::ModelShape& shape,
                     const Stream& stream, const Lengths& lengths,
                     double most_seconds = kMostSeconds);

// A guess within some 20 ms: the device's best product, of which layers reach a share.
Speeds ProductSpeeds(const Stream& stream, DType type);

// "; the machine is busy: ..." where a middling measurement took `ratio` >= kBusy times the
// fastest; operations a second of both. Of an idle machine the ratio is less.
inline constexpr double kBusy = 1.5;
std::string BusyText(double fastest, double middling, double ratio);

// What is published of a card, times what this program reached of it (docs/benchmarks.md), which
// hangs on the width of the model.
struct Card {
  const char* name;
  double memory_gb;
  double products;  // operations a second in bfloat16, dense
  double memory;    // bytes a second
  double link;      // to its host, bytes a second each way
};
// kInvalidArgument, with the names that are known.
const Card& FindCard(const std::string& name);
Speeds SpeedsOf(const Card& card, const configs::ModelConfig& model,
                const policy_model::ModelShape& shape);

// {"train": 1e14, "forward": 2e14, "decode": 1e14, "memory": 3e12}: operations and bytes a second;
// "link": 5e10 too, where optimizer.offload is planned.
Speeds ReadSpeeds(const std::string& path);

}  // namespace plumb::run
