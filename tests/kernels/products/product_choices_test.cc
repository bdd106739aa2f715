#include "kernels/products/product_choices.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::kernels {
namespace {

const ChoicesOwner kOwner = {.device = "NVIDIA H200, 132 multiprocessors", .library = 130100};

ProductChoices Some() {
  return {{{.rows = 16, .n = 896, .k = 4864, .residual = true},
           {.algorithm = 66, .tile = 10, .stages = 36, .cluster = 3, .option = 1}},
          {{.rows = 8192, .n = 151936, .k = 896, .float_out = true},
           {.algorithm = 66, .tile = 165, .inner = 2, .swizzle = 1}},
          {{.rows = 8, .n = 64, .k = 32, .float_in = true, .float_out = true, .bias = true},
           {.algorithm = 0, .tile = 15}}};
}

ErrorCode CodeOf(const std::string& text, const ChoicesOwner& of = kOwner) {
  try {
    ParseChoices(text, of);
  } catch (const Error& e) {
    return e.code();
  }
  return ErrorCode{};
}

class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old, there_ = true;
    if (value) setenv(name, value, 1);
    else unsetenv(name);
  }
  ~Variable() {
    if (there_) setenv(name_, old_.c_str(), 1);
    else unsetenv(name_);
  }

 private:
  const char* name_;
  std::string old_;
  bool there_ = false;
};

TEST(ProductChoices, BucketsHoldTheirRows) {
  EXPECT_EQ(RowBucket(1), 8);
  EXPECT_EQ(RowBucket(8), 8);
  EXPECT_EQ(RowBucket(9), 16);
  EXPECT_EQ(RowBucket(152), 192);
  EXPECT_EQ(RowBucket(8192), 8192);
  EXPECT_EQ(RowBucket(100000), 8192);
  int64_t before = 0;
  for (int64_t m = 1; m <= 8192; ++m) {
    const int64_t bucket = RowBucket(m);
    EXPECT_GE(bucket, m);
    EXPECT_GE(bucket, before);
    EXPECT_EQ(RowBucket(bucket), bucket);
    before = bucket;
  }
}

TEST(ProductChoices, TextComesBack) {
  EXPECT_EQ(ParseChoices(ChoicesText(kOwner, Some()), kOwner), Some());
  EXPECT_EQ(ParseChoices(ChoicesText(kOwner, {}), kOwner), ProductChoices{});
}

TEST(ProductChoices, OfAnotherDeviceOrVersionIsAConflict) {
  const std::string text = ChoicesText(kOwner, Some());
  EXPECT_EQ(CodeOf(text, {.device = kOwner.device, .library = 130200}), ErrorCode::kConflict);
  EXPECT_EQ(CodeOf(text, {.device = "NVIDIA A100", .library = kOwner.library}),
            ErrorCode::kConflict);
}

// Every byte, changed and as the end.
TEST(ProductChoices, BrokenTextIsCorruption) {
  const std::string text = ChoicesText(kOwner, Some());
  for (size_t i = 0; i < text.size(); ++i) {
    std::string other = text;
    other[i] = static_cast<char>(other[i] ^ 1);
    EXPECT_EQ(CodeOf(other), ErrorCode::kCorruption) << "byte " << i;
    EXPECT_EQ(CodeOf(text.substr(0, i)), ErrorCode::kCorruption) << "the first " << i << " bytes";
  }
  EXPECT_EQ(CodeOf(text + "1"), ErrorCode::kCorruption);
}

// A file that is whole and says what nobody chose: it would cost the bits.
TEST(ProductChoices, AlgorithmsThatChangeBitsAreRefused) {
  for (const uint32_t algorithm : {13u, 16u}) {
    EXPECT_FALSE(KeepsBits(algorithm));
    EXPECT_EQ(
        CodeOf(ChoicesText(kOwner, {{{.rows = 8, .n = 8, .k = 8}, {.algorithm = algorithm}}})),
        ErrorCode::kCorruption);
  }
  EXPECT_TRUE(KeepsBits(66));
  EXPECT_EQ(CodeOf(ChoicesText(kOwner, {{{.rows = 9, .n = 8, .k = 8}, {.algorithm = 66}}})),
            ErrorCode::kCorruption);
}

TEST(ProductChoices, PathFollowsTheUsersCache) {
  const std::string name = "/plumb/products-NVIDIA_H200__132_multiprocessors.txt";
  const Variable home("HOME", "/home/someone");
  {
    const Variable cache("XDG_CACHE_HOME", "/cache");
    EXPECT_EQ(ChoicesPath(kOwner), "/cache" + name);
  }
  {
    const Variable cache("XDG_CACHE_HOME", "relative");
    EXPECT_EQ(ChoicesPath(kOwner), "/home/someone/.cache" + name);
  }
  const Variable cache("XDG_CACHE_HOME", nullptr), none("HOME", nullptr);
  EXPECT_EQ(ChoicesPath(kOwner), "");
  EXPECT_EQ(ReadChoices("", kOwner), ProductChoices{});
  AddChoices("", kOwner, Some());
}

TEST(ProductChoices, FileGrowsAndIsReadAgain) {
  const testing::TempFolder folder;
  const std::string path = folder / "deep/er/products.txt";
  EXPECT_EQ(ReadChoices(path, kOwner), ProductChoices{});
  AddChoices(path, kOwner, Some());
  const ProductKey more = {.rows = 32, .n = 896, .k = 896};
  AddChoices(path, kOwner, {{more, {.algorithm = 66, .tile = 15}}});
  ProductChoices all = Some();
  all[more] = {.algorithm = 66, .tile = 15};
  EXPECT_EQ(ReadChoices(path, kOwner), all);
}

TEST(ProductChoices, BrokenOrForeignFilesAreSaidIgnoredAndReplaced) {
  const testing::TempFolder folder;
  const std::string broken = folder / "broken.txt", foreign = folder / "foreign.txt";
  RealFileSystem().WriteFileAtomic(broken, "plumb products 2\nnonsense\n");
  RealFileSystem().WriteFileAtomic(
      foreign, ChoicesText({.device = kOwner.device, .library = 120000}, Some()));
  for (const std::string& path : {broken, foreign}) {
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(ReadChoices(path, kOwner), ProductChoices{});
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find(path), std::string::npos) << said;
    EXPECT_NE(said.find("ignored"), std::string::npos) << said;
    AddChoices(path, kOwner, Some());
    EXPECT_EQ(ReadChoices(path, kOwner), Some());
  }
}

TEST(ProductChoices, AFolderThatTakesNoFileIsSaid) {
  const testing::TempFolder folder;
  RealFileSystem().WriteFileAtomic(folder / "file", "");
  ::testing::internal::CaptureStderr();
  AddChoices(folder / "file/products.txt", kOwner, Some());
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("is not kept"), std::string::npos);
}

}  // namespace
}  // namespace plumb::kernels
