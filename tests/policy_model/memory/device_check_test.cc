// Which models are refused on a GPU, and in which words.
#include "policy_model/memory/device_check.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::policy_model {
namespace {

std::string WhyNot(const ModelShape& shape, Device device) {
  try {
    CheckDeviceOf(shape, device);
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    return e.what();
  }
}

TEST(DeviceCheckTest, NamesThePartThatAGpuDoesNotCompute) {
  ModelShape dense{.family = "llama", .layers = 2};
  ModelShape experts = dense, latent = dense, states = dense, uneven = dense;
  experts.experts = {.count = 8, .widths = {12}};
  uneven.experts = {.count = 8, .widths = {12, 16}};
  latent.latent.kv_rank = 16;
  states.hybrid.layers = {1, 0};
  const Device gpu = *ParseDevice("cuda");
  for (const ModelShape& shape : {dense, experts, latent, states})
    EXPECT_EQ(WhyNot(shape, gpu), "");
  EXPECT_EQ(WhyNot(uneven, Device::kCpu), "");
  const std::string why = WhyNot(uneven, gpu);
  EXPECT_NE(why.find("experts of different widths"), std::string::npos) << why;
  EXPECT_NE(why.find("run.device"), std::string::npos) << why;
}

}  // namespace
}  // namespace plumb::policy_model
