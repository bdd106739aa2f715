// GGUF files of the Python package `gguf` (tests/golden/make_gguf_golden.py): keys of every type,
// every element type bit for bit, a model in three files; and files that do not fit together.
#include "policy_model/files/gguf_reader.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "common/base/error.h"
#include "tests/testing/gguf_maker.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

namespace fs = std::filesystem;
using plumb::testing::GgufMaker;
using plumb::testing::GgufText;
using plumb::testing::Raw;

std::string Golden(int part) {
  return PLUMB_SOURCE_DIR "/tests/golden/gguf/blocks-0000" + std::to_string(part) +
         "-of-00003.gguf";
}

TEST(GgufReader, KeysOfEveryType) {
  const auto in = GgufReader::Open(Golden(1));
  EXPECT_EQ(in->Integer("one.u8"), 200);
  EXPECT_EQ(in->Integer("one.i8"), -100);
  EXPECT_EQ(in->Integer("one.u16"), 60000);
  EXPECT_EQ(in->Integer("one.i16"), -30000);
  EXPECT_EQ(in->Integer("one.u32"), 4000000000);
  EXPECT_EQ(in->Integer("one.i32"), -2000000000);
  EXPECT_EQ(in->Integer("one.u64"), INT64_MAX);
  EXPECT_EQ(in->Integer("one.i64"), -(int64_t{1} << 62));
  EXPECT_EQ(in->Integer("one.bool"), 1);
  EXPECT_EQ(in->Number("one.f32"), static_cast<double>(0.1f));
  EXPECT_EQ(in->Number("one.f64"), 0.1);
  EXPECT_EQ(in->Number("one.beyond"), 18446744073709551616.0) << "beyond 63 bits: as a float";
  EXPECT_EQ(in->Text("one.text"), "Grüße");
  using Integers = std::vector<int64_t>;
  EXPECT_EQ(in->Integers("list.u8"), (Integers{0, 255}));
  EXPECT_EQ(in->Integers("list.i8"), (Integers{-128, 127}));
  EXPECT_EQ(in->Integers("list.u16"), (Integers{0, 65535}));
  EXPECT_EQ(in->Integers("list.i16"), (Integers{-32768, 32767}));
  EXPECT_EQ(in->Integers("list.u32"), (Integers{0, 4294967295}));
  EXPECT_EQ(in->Integers("list.i32"), (Integers{INT32_MIN, INT32_MAX}));
  EXPECT_EQ(in->Integers("list.u64"), (Integers{0, INT64_MAX}));
  EXPECT_EQ(in->Integers("list.i64"), (Integers{INT64_MIN, 5}));
  EXPECT_EQ(in->Integers("list.bool"), (Integers{1, 0, 1}));
  EXPECT_EQ(in->Numbers("list.f32"), (std::vector<double>{0.5, -1.25}));
  EXPECT_EQ(in->Numbers("list.f64"), (std::vector<double>{0.1, 1e300}));
  EXPECT_EQ(in->Texts("list.text"), (std::vector<std::string_view>{"a", "", "ß"}));
  EXPECT_TRUE(in->IsList("list.nested"));
  // Nothing turns into something else on the way.
  EXPECT_THROW(in->Integer("one.f32"), Error);
  EXPECT_THROW(in->Integer("one.beyond"), Error);
  EXPECT_THROW(in->Number("one.u8"), Error);
  EXPECT_THROW(in->Text("one.u8"), Error);
  EXPECT_THROW(in->Texts("list.u8"), Error);
  EXPECT_THROW(in->Texts("one.text"), Error);
  EXPECT_THROW(in->Integers("list.text"), Error);
  EXPECT_THROW(in->Integers("list.nested"), Error);
  EXPECT_THROW(in->Numbers("list.u8"), Error);
  EXPECT_THROW(in->Integer("missing"), Error);
  EXPECT_EQ(in->Integer("missing", 7), 7);
}

TEST(GgufReader, EveryTypeHasTheBitsOfTheReference) {
  const auto in = GgufReader::Open(Golden(1));
  int types = 0;
  for (const auto& [name, tensor] : in->tensors()) {
    const auto want = in->tensors().find(name + ".f32");
    if (want == in->tensors().end()) continue;
    ++types;
    ASSERT_EQ(want->second.shape, tensor.shape) << name;
    std::vector<float> values(want->second.bytes.size() / 4);
    Dequantize(tensor.type, tensor.bytes, values);
    EXPECT_EQ(std::memcmp(values.data(), want->second.bytes.data(), want->second.bytes.size()), 0)
        << name;
    // An error in the order of the elements shows where: the first that differs.
    for (size_t i = 0; i < values.size(); ++i) {
      float other;
      std::memcpy(&other, want->second.bytes.data() + 4 * i, 4);
      ASSERT_EQ(values[i], other) << name << " " << i;
    }
  }
  EXPECT_EQ(types, 13) << "all but F32";
}

TEST(GgufReader, AnyFileOpensTheWholeSplitModel) {
  const auto whole = GgufReader::Open(Golden(1));
  EXPECT_EQ(whole->tensors().size(), 27u);
  for (const int part : {2, 3}) {
    const auto same = GgufReader::Open(Golden(part));
    EXPECT_EQ(same->tensors().size(), 27u);
    EXPECT_EQ(same->Text("one.text"), "Grüße") << "the first file has the keys";
    EXPECT_EQ(same->path(), Golden(1));
    EXPECT_EQ(same->tensors().at("F32").shape, (std::vector<int64_t>{2, 5}));
  }
}

class SplitGguf : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return temp_.path() + "/" + name; }
  void Save(const std::string& name, const std::string& bytes) {
    fs::remove(Path(name));
    RealFileSystem().OpenAppend(Path(name), true)->Append(bytes);
  }
  // A file of a split model, with a tensor of its own.
  static std::string Part(uint32_t no, uint32_t count, const std::string& tensor,
                          uint32_t tensors = 2) {
    GgufMaker m;
    m.Integer("split.no", no);
    m.Integer("split.count", count);
    m.Integer("split.tensors.count", tensors);
    m.Tensor(tensor, {2}, 0, plumb::testing::Floats(2, 1));
    return m.File();
  }
  void Refuses(const std::string& name, ErrorCode code, const std::string& what) {
    try {
      GgufReader::Open(Path(name));
      ADD_FAILURE() << "accepted, but " << what;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
    }
  }
  plumb::testing::TempFolder temp_;
};

TEST_F(SplitGguf, FilesHaveToFitTogether) {
  const std::string one = "m-00001-of-00002.gguf", two = "m-00002-of-00002.gguf";
  Save(one, Part(0, 2, "a"));
  Save(two, Part(1, 2, "b"));
  EXPECT_EQ(GgufReader::Open(Path(one))->tensors().size(), 2u);
  Save("m.gguf", Part(0, 2, "a"));
  Refuses("m.gguf", ErrorCode::kNotFound, "-00001-of-00002.gguf");
  Save("x", Part(0, 2, "a"));
  Refuses("x", ErrorCode::kNotFound, "has to end in");
  Save(two, Part(1, 2, "a"));
  Refuses(one, ErrorCode::kCorruption, "twice");
  Save(two, Part(0, 2, "b"));
  Refuses(one, ErrorCode::kCorruption, "another model");
  Save(two, Part(1, 3, "b"));
  Refuses(one, ErrorCode::kCorruption, "another model");
  Save(two, GgufMaker().File());
  Refuses(one, ErrorCode::kCorruption, "another model");
  Save(two, Part(1, 2, "b"));
  Save(one, Part(0, 2, "a", 3));
  Refuses(one, ErrorCode::kCorruption, "split.tensors.count");
  fs::remove(Path(two));
  Save(one, Part(0, 2, "a"));
  Refuses(one, ErrorCode::kNotFound, two);
  Save(one, Part(2, 2, "a"));
  Refuses(one, ErrorCode::kCorruption, "split.no");
  Save(one, Part(0, 4000000000u, "a"));
  Refuses(one, ErrorCode::kCorruption, "one of 4000000000");
}

TEST_F(SplitGguf, ListsAndNamesHaveBounds) {
  const auto header = [](const std::string& values) {
    return "GGUF" + Raw<uint32_t>(3) + Raw<uint64_t>(0) + Raw<uint64_t>(1) + values;
  };
  std::string nested = GgufText("k") + Raw<uint32_t>(9);
  for (int i = 0; i < 5; ++i) nested += Raw<uint32_t>(9) + Raw<uint64_t>(1);
  Save("n", header(nested + Raw<uint32_t>(0) + Raw<uint64_t>(0) + std::string(64, '\0')));
  Refuses("n", ErrorCode::kCorruption, "deep");
  // Each list of lists is 12 bytes at least: four billion of them are not in 100 bytes.
  Save("n", header(GgufText("k") + Raw<uint32_t>(9) + Raw<uint32_t>(9) +
                   Raw<uint64_t>(uint64_t{1} << 22) + std::string(100, '\0')));
  Refuses("n", ErrorCode::kCorruption, "an array of 4194304");
  Save("n", header(GgufText("k") + Raw<uint32_t>(9) + Raw<uint32_t>(10) + Raw<uint64_t>(2) +
                   std::string(15, '\0')));
  Refuses("n", ErrorCode::kCorruption, "an array of 2");
  Save("n", header(GgufText("k") + Raw<uint32_t>(9) + Raw<uint32_t>(13) + Raw<uint64_t>(0)));
  Refuses("n", ErrorCode::kCorruption, "unknown type 13");
  Save("n", header(GgufText(std::string(5000, 'k')) + Raw<uint32_t>(0) + "x"));
  Refuses("n", ErrorCode::kCorruption, "a name of 5000 bytes");
}

}  // namespace
}  // namespace plumb::policy_model
