#include "learner/ranks/nccl_library.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "tests/testing/paths.h"

namespace plumb::learner {
namespace {

std::string ErrorOf(const std::string& wanted) {
  try {
    OpenNccl(wanted);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    return e.what();
  }
  return "";
}

TEST(NcclLibraryTest, IsLookedForWhereTheLoaderLooksAndBesideLibTorch) {
  const auto places = NcclPlaces("");
  ASSERT_EQ(places.size(), 3u);
  EXPECT_EQ(places[0], "libnccl.so.2");
  EXPECT_NE(places[1].find("torch/lib/libnccl.so.2"), std::string::npos) << places[1];
  EXPECT_NE(places[2].find("nvidia/nccl/lib/libnccl.so.2"), std::string::npos) << places[2];
  EXPECT_EQ(places[2].find("torch/lib"), std::string::npos) << places[2];
  EXPECT_EQ(NcclPlaces("/x.so"), std::vector<std::string>{"/x.so"});
}

TEST(NcclLibraryTest, SaysWhatWasTriedAndWhatToDo) {
  const std::string missing = ErrorOf("/nowhere/libnccl.so.2");
  EXPECT_NE(missing.find("/nowhere/libnccl.so.2"), std::string::npos) << missing;
  EXPECT_NE(missing.find("PLUMB_NCCL"), std::string::npos) << missing;
  const std::string other = ErrorOf("libz.so.1");  // a library, but another
  EXPECT_NE(other.find("libz.so.1 has no ncclGetUniqueId"), std::string::npos) << other;
}

TEST(NcclLibraryTest, FindsAllFunctionsOfALibrary) {
  const NcclLibrary library = OpenNccl(testing::BinaryPath("tests/libstub_nccl.so"));
  NcclId id{};
  EXPECT_EQ(library.GetUniqueId(&id), 0);
  EXPECT_STREQ(library.GetErrorString(1), "stub refuses");
}

}  // namespace
}  // namespace plumb::learner
