#include "policy_model/gpu_speed.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "kernels/products/row_product.h"

namespace plumb::policy_model {
namespace {

TEST(GpuSpeed, CostIsTheGeometricMeanOfTheRowsAskedFor) {
  GpuFigures figures;
  figures.products = {{.name = "a",
                       .speeds = {{.rows = 16, .default_us = 10, .exact_us = 20},
                                  {.rows = 64, .default_us = 10, .exact_us = 11}}},
                      {.name = "b", .speeds = {{.rows = 16, .default_us = 8, .exact_us = 4}}},
                      {.name = "c", .speeds = {}}};
  EXPECT_NEAR(ExactCostPercent(figures, 16), 0, 1e-9);
  EXPECT_NEAR(ExactCostPercent(figures, 64), 10, 1e-9);
  EXPECT_EQ(ExactCostPercent(figures, 256), 0);
}

TEST(GpuSpeed, TheCpuIsRefused) {
  try {
    MeasureGpu(Device::kCpu, std::chrono::seconds(1));
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
  }
}

TEST(GpuSpeed, MeasuresAndLeavesExactProductsAsTheyWere) {
  if (!kernels::CudaAvailable())
    GTEST_SKIP() << "NO GPU: what plumb doctor --gpu measures was NOT tested here";
  kernels::SetExactProducts(false);
  const OwnedStream stream(Device::Cuda(0));
  const GpuFigures figures = MeasureGpu(stream, std::chrono::seconds(5));
  EXPECT_FALSE(kernels::ExactProducts());
  kernels::SetExactProducts(true);
  EXPECT_GT(figures.copy_gb_s, 10);
  EXPECT_GT(figures.tflop_s, 1);
  ASSERT_FALSE(figures.products.empty());
  for (const ProductFigures& product : figures.products) {
    EXPECT_TRUE(product.exact_changes.empty()) << product.name;
    for (const ProductSpeed& speed : product.speeds) {
      EXPECT_GT(speed.default_us, 0) << product.name;
      EXPECT_GT(speed.exact_us, 0) << product.name;
    }
  }
}

}  // namespace
}  // namespace plumb::policy_model
