// Every family as llama.cpp's converter writes it: keys, names and places as the Python package
// `gguf` put them (tests/golden/make_gguf_golden.py), converted, against the folder that
// transformers wrote: the same shape and the same weights, so that all that is checked of those
// folders (families_test.cc: log-probs and gradients) holds of these.
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"
#include "policy_model/families/model_config.h"
#include "policy_model/gguf/convert.h"
#include "policy_model/gguf/shape_keys.h"
#include "policy_model/gguf/weight_tensors.h"
#include "tests/policy_model/layers/families_golden.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::json;

const Json& Golden() {
  static const Json golden = [] {
    std::string text;
    gzFile file = gzopen(PLUMB_SOURCE_DIR "/tests/golden/gguf_families.json.gz", "rb");
    EXPECT_NE(file, nullptr);
    char buffer[1 << 16];
    for (int n; (n = gzread(file, buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<size_t>(n));
    gzclose(file);
    return Json::parse(text);
  }();
  return golden;
}

std::vector<std::string> Cases() {
  std::vector<std::string> names;
  for (const auto& [name, value] : Golden().items()) names.push_back(name);
  return names;
}

std::string FromBase64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(digits.find(c));
    count += 6;
    if (count >= 8) out.push_back(static_cast<char>(bits >> (count -= 8) & 255));
  }
  return out;
}

class FamiliesGguf : public ::testing::TestWithParam<std::string> {
 protected:
  const Json& made() const { return Golden()[GetParam()]; }
  const Json& config() const { return FamiliesGolden()["families"][GetParam()]["config"]; }

  // The numbers of a tensor of the folder in the file's layout.
  std::vector<float> InFile(const std::string& name) const {
    const std::string family = config()["model_type"];
    const bool gemma = family == "gemma3_text";
    int64_t elements = 1;
    std::vector<int64_t> dims = FamiliesGolden()["families"][GetParam()]["shapes"][name];
    for (const int64_t d : dims) elements *= d;
    std::vector<float> values;
    for (int64_t i = 0; i < elements; ++i)
      values.push_back(FillValue(name, i, gemma ? 0.0 : 1.0) +
                       (gemma && name.ends_with("norm.weight") ? 1.0f : 0.0f));
    const bool q = name.find(".q_proj.") != std::string::npos,
               k = name.find(".k_proj.") != std::string::npos;
    const bool neighbours = family == "llama" || family == "mistral" || family == "ministral3" ||
                            family == "smollm3" || family == "granite";
    if (!neighbours || !(q || k)) return values;
    const int64_t heads = config()[q ? "num_attention_heads" : "num_key_value_heads"],
                  columns = elements / dims[0], dim = dims[0] / heads;
    std::vector<float> out;
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t pair = 0; pair < dim / 2; ++pair) {
        for (const int64_t row : {head * dim + pair, head * dim + dim / 2 + pair})
          out.insert(out.end(), values.begin() + row * columns,
                     values.begin() + (row + 1) * columns);
      }
    }
    return out;
  }

  std::string WriteFile() {
    std::string data;
    size_t divisors = 0;
    for (const Json& name : made()["tensors"]) {
      const std::vector<float> values =
          name.get<std::string>().empty() ? made()["divisors"][divisors++].get<std::vector<float>>()
                                          : InFile(name.get<std::string>());
      data.append(reinterpret_cast<const char*>(values.data()), values.size() * 4);
      data.resize((data.size() + 31) / 32 * 32);
    }
    Sha256 digest;
    digest.Update(std::as_bytes(std::span(data.data(), data.size())));
    EXPECT_EQ(digest.HexDigest(), made()["sha256"].get<std::string>())
        << "the numbers that the reference wrote";
    const std::string path = temp_.path() + "/model.gguf";
    RealFileSystem().OpenAppend(path, true)->Append(FromBase64(made()["header"]) + data);
    return path;
  }

  testing::TempFolder temp_;
};

TEST_P(FamiliesGguf, IsTheModelOfItsFolder) {
  const std::string theirs = temp_.path() + "/theirs", ours = temp_.path() + "/ours";
  WriteFamilyFolder(GetParam(), theirs);
  ConvertGguf(WriteFile(), ours, DType::kFloat32, false);
  const auto a = SafetensorsReader::OpenDirectory(theirs),
             b = SafetensorsReader::OpenDirectory(ours);
  ASSERT_EQ(a->tensors().size(), b->tensors().size());
  for (const auto& [name, tensor] : a->tensors()) {
    ASSERT_TRUE(b->tensors().count(name)) << name;
    const TensorView& other = b->tensors().at(name);
    ASSERT_EQ(tensor.shape, other.shape) << name;
    if (config()["model_type"] == "gemma3_text" && name.ends_with("norm.weight")) {
      // 1 + w was rounded before it was written.
      for (size_t i = 0; i < tensor.bytes.size(); i += 4) {
        float x, y;
        std::memcpy(&x, tensor.bytes.data() + i, 4);
        std::memcpy(&y, other.bytes.data() + i, 4);
        ASSERT_NEAR(x, y, 1.2e-7) << name;
      }
      continue;
    }
    EXPECT_EQ(std::memcmp(tensor.bytes.data(), other.bytes.data(), tensor.bytes.size()), 0) << name;
  }
  ModelShape want = ReadModelConfig(theirs), got = ReadModelConfig(ours);
  // Floats of the file are decimals of seven digits: the scale of attention of Gemma is no such.
  EXPECT_NEAR(got.attention_scale, want.attention_scale, 1e-7);
  got.attention_scale = want.attention_scale;
  // llama.cpp takes the first end token alone.
  EXPECT_EQ(got.rope.kind, want.rope.kind);
  EXPECT_NEAR(got.rope.attention_factor, want.rope.attention_factor, 1e-6);
  EXPECT_TRUE(got == want) << RealFileSystem().ReadFile(ours + "/config.json", 1 << 20);
}

TEST_P(FamiliesGguf, ConvertsWhatConvertsBack) {
  // The shape of the keys is the shape of the config.json that is written of it.
  const std::string ours = temp_.path() + "/ours", path = WriteFile();
  ConvertGguf(path, ours, DType::kBFloat16, false);
  const auto in = GgufReader::Open(path);
  ModelShape shape = ShapeOf(*in), again = ReadModelConfig(ours);
  EXPECT_NEAR(shape.attention_scale, again.attention_scale, 1e-9);
  again.attention_scale = shape.attention_scale;
  EXPECT_TRUE(shape == again) << RealFileSystem().ReadFile(ours + "/config.json", 1 << 20);
  EXPECT_EQ(WeightTensors(*in, shape, ArchitectureOf(*in), DType::kFloat32).size(),
            made()["tensors"].size() - made()["divisors"].size());
}

INSTANTIATE_TEST_SUITE_P(All, FamiliesGguf, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace plumb::policy_model
