#include "run/commands/doctor/gpu_report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "kernels/device/stream.h"
#include "run/commands/cli.h"

namespace plumb::run {
namespace {

policy_model::GpuFigures Figures() {
  return {.copy_gb_s = 4190,
          .tflop_s = 712,
          .products = {{.name = "0.5B down",
                        .n = 896,
                        .k = 4864,
                        .default_changes = {152, 256},
                        .speeds = {{.rows = 16,
                                    .default_us = 8,
                                    .exact_us = 10,
                                    .choice = "algorithm 66, tile 64x8"}}}},
          .left_out = {"7B down"}};
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(GpuReport, TableSaysWhatWasMeasuredAndWhatWasNot) {
  const std::string table = GpuTable("cuda:1", Figures());
  for (const char* part :
       {"cuda:1", "4190 GB/s (read", "712 TFLOP/s", "152, 256", "none", "+25.0%",
        "algorithm 66, tile 64x8", "+25.0% at M = 16", "Not measured, for want of time: 7B down"})
    EXPECT_TRUE(Has(table, part)) << part << "\n" << table;
}

TEST(GpuReport, JsonHasTheSameFigures) {
  const auto json = nlohmann::json::parse(GpuJson("cuda:1", Figures()));
  EXPECT_EQ(json["device"], "cuda:1");
  EXPECT_EQ(json["products"][0]["default_changes"], (std::vector<int64_t>{152, 256}));
  EXPECT_TRUE(json["products"][0]["exact_changes"].empty());
  EXPECT_DOUBLE_EQ(json["products"][0]["speeds"][0]["exact_cost_percent"], 25);
  EXPECT_NEAR(json["exact_cost_percent"]["16"].get<double>(), 25, 1e-9);
  EXPECT_EQ(json["left_out"][0], "7B down");
}

ErrorCode CodeOf(const std::string& device, std::string* text) {
  try {
    GpuReport(device, false);
  } catch (const Error& e) {
    *text = e.what();
    return e.code();
  }
  return ErrorCode{};
}

TEST(GpuReport, WhatIsNoGpuIsRefused) {
  std::string text;
  for (const char* device : {"cpu", "gpu", "cuda:x"}) {
    EXPECT_EQ(CodeOf(device, &text), ErrorCode::kInvalidArgument) << device;
    EXPECT_TRUE(Has(text, "--device") && Has(text, "cuda:N")) << text;
  }
  const std::string none = "cuda:" + std::to_string(kernels::CudaDevices());
  EXPECT_EQ(CodeOf(none, &text), ErrorCode::kUnsupported);
  EXPECT_TRUE(Has(text, none)) << text;
  EXPECT_EQ(ExitCodeOf(ErrorCode::kUnsupported), 9);
}

}  // namespace
}  // namespace plumb::run
