// safetensors files: what is written reads back, and every broken header is an error that names the
// file.
#include "policy_model/files/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"

namespace plumb::policy_model {
namespace {

class Safetensors : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // A file of this header and so many data bytes.
  std::string Make(const std::string& header, size_t data, const char* name = "model.safetensors") {
    const uint64_t size = header.size();
    std::string bytes(reinterpret_cast<const char*>(&size), 8);
    RealFileSystem().WriteFileAtomic(folder_ + "/" + name, bytes + header + std::string(data, 'x'));
    return folder_ + "/" + name;
  }
  void Refuses(const std::string& path, ErrorCode code, const std::string& what) {
    try {
      SafetensorsReader::OpenFile(path);
      ADD_FAILURE() << "accepted, but " << what;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(path), std::string::npos) << e.what();
    }
  }
  const std::string folder_ = ::testing::TempDir() + "/safetensors_" + std::to_string(getpid());
};

TensorToWrite Counting(const std::string& name, DType dtype, std::vector<int64_t> shape,
                       int start) {
  return {name, dtype, std::move(shape), [start](std::span<std::byte> out) {
            for (size_t i = 0; i < out.size(); ++i)
              out[i] = static_cast<std::byte>(start + static_cast<int>(i));
          }};
}

TEST_F(Safetensors, WhatIsWrittenReadsBack) {
  const std::string path = folder_ + "/model.safetensors";
  WriteSafetensors(
      path,
      {Counting("b.weight", DType::kFloat32, {3, 2}, 1), Counting("a", DType::kBFloat16, {5}, 50),
       Counting("none", DType::kInt64, {0, 4}, 0), Counting("scalar", DType::kInt32, {}, 9),
       Counting("half", DType::kFloat16, {1, 1, 2}, 70)},
      {{"format", "pt"}, {"version", "7"}});
  const auto reader = SafetensorsReader::OpenDirectory(folder_);
  EXPECT_EQ(reader->metadata(),
            (std::map<std::string, std::string>{{"format", "pt"}, {"version", "7"}}));
  ASSERT_EQ(reader->tensors().size(), 5u);
  const TensorView& b = reader->tensors().at("b.weight");
  EXPECT_EQ(b.dtype, DType::kFloat32);
  EXPECT_EQ(b.shape, (std::vector<int64_t>{3, 2}));
  ASSERT_EQ(b.bytes.size(), 24u);
  EXPECT_EQ(static_cast<int>(b.bytes[23]), 24);
  EXPECT_EQ(static_cast<int>(reader->tensors().at("a").bytes[9]), 59);
  EXPECT_EQ(reader->tensors().at("none").bytes.size(), 0u);
  EXPECT_EQ(reader->tensors().at("scalar").bytes.size(), 4u);
  EXPECT_EQ(reader->tensors().at("half").dtype, DType::kFloat16);
  uint64_t header = 0;
  std::memcpy(&header, RealFileSystem().ReadFile(path, 1 << 20).data(), 8);
  EXPECT_EQ(header % 8, 0u) << "data starts aligned";
}

TEST_F(Safetensors, AFailedWriteLeavesTheOldFileAndNoOther) {
  const std::string path = folder_ + "/model.safetensors";
  WriteSafetensors(path, {Counting("a", DType::kInt32, {1}, 1)}, {});
  const TensorToWrite bad = {"b", DType::kInt32, {1}, [](std::span<std::byte>) {
                               throw Error(ErrorCode::kIo, "source is gone");
                             }};
  EXPECT_THROW(WriteSafetensors(path, {Counting("a", DType::kInt32, {1}, 2), bad}, {}), Error);
  EXPECT_EQ(RealFileSystem().List(folder_), std::vector<std::string>{"model.safetensors"});
  EXPECT_EQ(static_cast<int>(SafetensorsReader::OpenFile(path)->tensors().at("a").bytes[0]), 1);
}

TEST_F(Safetensors, BrokenHeadersAreErrors) {
  const ErrorCode corrupt = ErrorCode::kCorruption;
  const std::string ok = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  EXPECT_NO_THROW(SafetensorsReader::OpenFile(Make(ok, 8)));
  Refuses(Make(ok, 7), corrupt, "truncated");
  Refuses(Make(ok, 9), corrupt, "no tensor owns");
  Refuses(Make("[1]", 0), corrupt, "object");
  Refuses(Make("{\"a\":", 0), corrupt, "JSON");
  Refuses(Make(std::string(100000, '['), 0), corrupt, "nested");
  Refuses(Make(R"({"a":{"dtype":"F32","shape":[2]}})", 8), corrupt, "data_offsets");
  Refuses(Make(R"({"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}})", 8),
          ErrorCode::kUnsupported, "F8_E4M3");
  Refuses(Make(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8), corrupt,
          "another size");
  Refuses(Make(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8), corrupt, "shape");
  Refuses(Make(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8), corrupt, "shape");
  Refuses(Make(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8), corrupt, "");
  Refuses(
      Make(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}})", 0),
      corrupt, "overflow");
  Refuses(Make(R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0),
          corrupt, "overflow");
  const std::string two =
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":)";
  EXPECT_NO_THROW(SafetensorsReader::OpenFile(Make(two + "[4,8]}}", 8)));
  Refuses(Make(two + "[2,6]}}", 6), corrupt, "overlap");
  Refuses(Make(two + "[6,10]}}", 10), corrupt, "hole");
  Refuses(
      Make(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
          8),
      corrupt, "twice");
  Refuses(Make(R"({"__metadata__":{"x":1}})", 0), corrupt, "__metadata__");
  RealFileSystem().WriteFileAtomic(folder_ + "/short", "abc");
  Refuses(folder_ + "/short", corrupt, "too short");
  RealFileSystem().WriteFileAtomic(folder_ + "/long", std::string(8, '\xff'));
  Refuses(folder_ + "/long", corrupt, "header");
}

TEST_F(Safetensors, EveryCutOfAFileIsAnError) {
  const std::string path = folder_ + "/model.safetensors";
  WriteSafetensors(path,
                   {Counting("a", DType::kFloat32, {4}, 1), Counting("b", DType::kInt32, {2}, 1)},
                   {{"format", "pt"}});
  const std::string whole = RealFileSystem().ReadFile(path, 1 << 20);
  for (size_t n = 0; n < whole.size(); ++n) {
    RealFileSystem().OpenAppend(folder_ + "/cut", true)->Append(whole.substr(0, n));
    EXPECT_THROW(SafetensorsReader::OpenFile(folder_ + "/cut"), Error) << n;
  }
}

TEST_F(Safetensors, ShardsAreReadThroughTheirIndex) {
  EXPECT_THROW(SafetensorsReader::OpenDirectory(folder_), Error);  // nothing there
  WriteSafetensors(folder_ + "/one.safetensors", {Counting("a", DType::kInt32, {1}, 1)}, {});
  WriteSafetensors(folder_ + "/two.safetensors", {Counting("b", DType::kInt32, {1}, 2)}, {});
  const auto index = [&](const std::string& map) {
    RealFileSystem().WriteFileAtomic(folder_ + "/model.safetensors.index.json",
                                     R"({"metadata":{"total_size":8},"weight_map":)" + map + "}");
  };
  index(R"({"a":"one.safetensors","b":"two.safetensors"})");
  const auto reader = SafetensorsReader::OpenDirectory(folder_);
  EXPECT_EQ(reader->tensors().size(), 2u);
  EXPECT_EQ(static_cast<int>(reader->tensors().at("b").bytes[0]), 2);
  for (const char* bad :
       {R"({"a":"one.safetensors","c":"two.safetensors"})", R"({"a":"../one.safetensors"})",
        R"({"a":"three.safetensors"})", R"({"a":7})", "[]"}) {
    index(bad);
    EXPECT_THROW(SafetensorsReader::OpenDirectory(folder_), Error) << bad;
  }
  WriteSafetensors(folder_ + "/two.safetensors",
                   {Counting("a", DType::kInt32, {1}, 2), Counting("b", DType::kInt32, {1}, 2)},
                   {});
  index(R"({"a":"one.safetensors","b":"two.safetensors"})");
  EXPECT_THROW(SafetensorsReader::OpenDirectory(folder_), Error);  // "a" is in two files
}

TEST_F(Safetensors, TheSingleFileGoesBeforeAnIndex) {
  WriteSafetensors(folder_ + "/model.safetensors", {Counting("a", DType::kInt32, {1}, 1)}, {});
  WriteSafetensors(folder_ + "/shard.safetensors", {Counting("a", DType::kInt32, {1}, 2)}, {});
  for (const char* map : {R"({"a":"shard.safetensors"})", R"({"a":"gone.safetensors"})"}) {
    RealFileSystem().WriteFileAtomic(folder_ + "/model.safetensors.index.json",
                                     std::string(R"({"weight_map":)") + map + "}");
    const auto reader = SafetensorsReader::OpenDirectory(folder_);
    EXPECT_EQ(static_cast<int>(reader->tensors().at("a").bytes[0]), 1) << map;
  }
}

}  // namespace
}  // namespace plumb::policy_model
