// A memory table's file: what it holds, what is refused, one table for all who name it.
#include "policy_model/memory/key_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash/sha256.h"
#include "policy_model/files/safetensors.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

TensorToWrite Tensor(const std::string& name, std::vector<int64_t> shape, float first = 0) {
  return {name, DType::kFloat32, std::move(shape), [first](std::span<std::byte> bytes) {
            for (size_t i = 0; i < bytes.size() / 4; ++i) {
              const float x = i == 0 ? first : 0.25f * static_cast<float>(i);
              std::memcpy(bytes.data() + 4 * i, &x, 4);
            }
          }};
}

class KeyTableTest : public ::testing::Test {
 protected:
  std::string path() { return folder_ / "table.safetensors"; }
  void Write(const std::vector<TensorToWrite>& tensors) { WriteSafetensors(path(), tensors, {}); }
  ModelShape Shape() {
    ModelShape shape;
    shape.head_dim = 4;
    shape.table = DescribeKeyTable(path(), 4);
    return shape;
  }
  void Refuses(const std::string& says, ErrorCode code = ErrorCode::kCorruption) {
    try {
      DescribeKeyTable(path(), 4);
      ADD_FAILURE() << "no error: " << says;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code);
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(path()), std::string::npos) << e.what();
    }
  }

 private:
  testing::TempFolder folder_;
};

TEST_F(KeyTableTest, IsReadOnceForAllWhoNameIt) {
  Write({Tensor("keys", {3, 4}, 7), Tensor("values", {3, 4})});
  const ModelShape shape = Shape();
  EXPECT_EQ(shape.table.rows, 3);
  EXPECT_EQ(shape.table.digest, Sha256Hex(RealFileSystem().ReadFile(path(), 1 << 20)));
  const auto table = KeyTableOf(shape), again = KeyTableOf(shape);
  EXPECT_EQ(table, again);
  ASSERT_EQ(table->keys.size(), 12u);
  EXPECT_EQ(table->keys[0], 7);
  EXPECT_EQ(table->keys[5], 1.25f);
  EXPECT_EQ(table->values[0], 0);
}

TEST_F(KeyTableTest, AnotherFileThanTheModelWasTrainedWithIsRefused) {
  Write({Tensor("keys", {3, 4}), Tensor("values", {3, 4})});
  const ModelShape shape = Shape();
  Write({Tensor("keys", {3, 4}, 1), Tensor("values", {3, 4})});
  try {
    KeyTableOf(shape);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict);
    EXPECT_NE(std::string(e.what()).find(shape.table.digest), std::string::npos) << e.what();
  }
}

TEST_F(KeyTableTest, FilesThatAreNoTableAreRefusedByWhatIsWrong) {
  Refuses("the memory table is not there", ErrorCode::kNotFound);
  Write({Tensor("keys", {3, 4})});
  Refuses("has no tensor `values`");
  Write({Tensor("keys", {3, 5}), Tensor("values", {3, 4})});
  Refuses("`keys` has shape [3, 5]; a memory table has `keys` and `values` of shape [N, 4]");
  Write({Tensor("keys", {12}), Tensor("values", {3, 4})});
  Refuses("`keys` has shape [12]");
  Write({Tensor("keys", {3, 4}), Tensor("values", {2, 4})});
  Refuses("different numbers of rows");
  Write({Tensor("keys", {3, 4}), Tensor("values", {3, 4}, NAN)});
  Refuses("`values` is not finite in row 0");
  RealFileSystem().WriteFileAtomic(path(), "no safetensors");
  EXPECT_THROW(DescribeKeyTable(path(), 4), Error);
}

}  // namespace
}  // namespace plumb::policy_model
