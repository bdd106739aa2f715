#include "policy_model/speed.h"

#include <gtest/gtest.h>

#include "policy_model/families/tensor_table.h"
#include "policy_model/memory/weights.h"

namespace plumb::policy_model {
namespace {

ModelShape Shape(bool tied) {
  return {.family = "llama",
          .layers = 3,
          .hidden = 32,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .ffn = 48,
          .vocab = 50,
          .max_positions = 16,
          .tied = tied};
}

TEST(SpeedTest, CountsEveryMatrixOnceAndTheHeadWhetherTiedOrNot) {
  // Against the table of weights: everything but the norms, and but the embedding where the head is
  // a matrix of its own.
  const ModelShape tied = Shape(true), untied = Shape(false);
  const int64_t norms = (2 * tied.layers + 1) * tied.hidden;
  EXPECT_EQ(ParametersInProducts(tied), TensorTable(tied).parameters() - norms);
  EXPECT_EQ(ParametersInProducts(untied), ParametersInProducts(tied));
  ModelShape critic = tied;
  critic.scalar_head = true;
  EXPECT_EQ(ParametersInProducts(critic),
            ParametersInProducts(tied) - tied.hidden * (tied.vocab - 1));
}

TEST(SpeedTest, ProductsHaveASpeed) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const double speed = MeasureProductSpeed(Device::kCpu, dtype);
    EXPECT_GT(speed, 1e7);
    EXPECT_LT(speed, 1e16);
  }
}

}  // namespace
}  // namespace plumb::policy_model
