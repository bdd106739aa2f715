#include "policy_model/memory/torch_version.h"

#include <gtest/gtest.h>

namespace plumb::policy_model {
namespace {

TEST(TorchVersionTest, TheLibraryThatIsLoadedSaysIt) {
  const std::string version = TorchVersion();
  EXPECT_TRUE(version.starts_with(TorchVersionOfHeaders()))
      << version << " is loaded, and the headers are of " << TorchVersionOfHeaders();
  EXPECT_NE(version.find_first_of("0123456789"), std::string::npos);
}

TEST(TorchVersionTest, ASettingIsFoundByItsWholeName) {
  const std::string settings =
      "PyTorch built with:\n  - GCC 13.3\n  - Build settings: BLAS_INFO=mkl, CUDA_VERSION=13.0, "
      "CXX_FLAGS= -O2 -DX=1, TORCH_VERSION=2.11.0, USE_CUDA=ON, \n";
  EXPECT_EQ(BuildSetting(settings, "TORCH_VERSION"), "2.11.0");
  EXPECT_EQ(BuildSetting(settings, "CUDA_VERSION"), "13.0");
  EXPECT_EQ(BuildSetting(settings, "CUDA"), "");
  EXPECT_EQ(BuildSetting(settings, "VERSION"), "");
  EXPECT_EQ(BuildSetting("", "TORCH_VERSION"), "");
}

}  // namespace
}  // namespace plumb::policy_model
