#include "kernels/delta/column_product.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

TEST(ColumnProductTest, MultipliesColumnsAndLeavesTheRest) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Target target{Device::kCpu, dtype};
    constexpr int64_t rows = 3, width = 21, a_stride = 25, b_stride = 40, y_stride = 22;
    const auto a = Normal(rows * a_stride, 1, dtype), b = Normal(rows * b_stride, 2, dtype);
    Tensor ta(target, a), tb(target, b), ty(target, std::vector<float>(rows * y_stride, 0.5f));
    Call(Launch{.stream = Device::kCpu, .dtype = dtype}, ColumnProduct{.a = ta.data(),
                                                                       .b = tb.data(),
                                                                       .rows = rows,
                                                                       .width = width,
                                                                       .a_stride = a_stride,
                                                                       .b_stride = b_stride,
                                                                       .y_stride = y_stride,
                                                                       .y = ty.data()});
    std::vector<double> want(rows * y_stride, 0.5);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t i = 0; i < width; ++i)
        want[r * y_stride + i] = static_cast<double>(a[r * a_stride + i] * b[r * b_stride + i]);
    }
    ExpectClose(ty.Host(), want, OutputRounding(dtype), 0, "y");
  }
}

}  // namespace
}  // namespace plumb::kernels
