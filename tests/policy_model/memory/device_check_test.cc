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
  ModelShape experts = dense, latent = dense, states = dense;
  experts.experts.count = 8;
  latent.latent.kv_rank = 16;
  states.hybrid.layers = {1, 0};
  const Device gpu = *ParseDevice("cuda");
  EXPECT_EQ(WhyNot(dense, gpu), "");
  for (const auto& [shape, part] :
       {std::pair(experts, "8 experts a layer"), std::pair(latent, "latent attention"),
        std::pair(states, "a state of constant size in 1 of 2 layers")}) {
    EXPECT_EQ(WhyNot(shape, Device::kCpu), "");
    const std::string why = WhyNot(shape, gpu);
    EXPECT_NE(why.find(part), std::string::npos) << why;
    EXPECT_NE(why.find("run.device"), std::string::npos) << why;
  }
}

}  // namespace
}  // namespace plumb::policy_model
