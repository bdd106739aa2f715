// policy_model/memory/stacked_tensor.h, and whole gpt-oss folders in MXFP4.
#include "policy_model/memory/stacked_tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "policy_model/families/model_config.h"
#include "policy_model/memory/load_check.h"
#include "policy_model/memory/weights.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kHidden = 32, kWidth = 32, kExperts = 3;

ModelShape Shape() {
  ModelShape s;
  s.family = "gpt_oss";
  s.layers = 2, s.hidden = kHidden, s.heads = 2, s.kv_heads = 1, s.head_dim = 8, s.ffn = kWidth;
  s.vocab = 11, s.max_positions = 32, s.rope_theta = 150000, s.tied = false;
  s.attention_bias = s.output_bias = s.sinks = true;
  s.window = 4, s.sliding = {1, 0};
  s.experts = {.count = kExperts,
               .widths = {kWidth},
               .per_token = 2,
               .biased = true,
               .glu_alpha = 1.702,
               .glu_limit = 7,
               .fused = true,
               .aux_coef = 0.001};
  return s;
}

TEST(StackedTensor, GoesToTheFileAndBack) {
  const TensorTable table(Shape());
  int stacked = 0;
  for (const TensorEntry& e : table.entries()) {
    const TensorPart& part = e.parts[0];
    if (!IsStacked(part)) continue;
    ++stacked;
    std::vector<float> ours(static_cast<size_t>(e.elements)), file(ours.size());
    for (size_t i = 0; i < ours.size(); ++i) ours[i] = static_cast<float>(i);
    WriteStacked(e, part, 4, std::as_bytes(std::span(ours)),
                 std::as_writable_bytes(std::span(file)));
    const TensorView view{.shape = FileShapeOf(e, part), .bytes = std::as_bytes(std::span(file))};
    StackedSource source{.values = &view, .names = {part.file_tensor}};
    EXPECT_FALSE(WhyUnfitStack(source, e, part));
    const size_t each = ours.size() / kExperts;
    std::vector<float> back;
    for (int64_t i = 0; i < kExperts; ++i) {
      ReadStacked(source, e, part, i, back);
      ASSERT_EQ(back.size(), each);
      EXPECT_TRUE(
          std::equal(back.begin(), back.end(), ours.begin() + i * static_cast<int64_t>(each)))
          << e.name;
    }
    if (e.name == "layers.0.experts_gate_up") {
      EXPECT_EQ(view.shape, (std::vector<int64_t>{kExperts, kHidden, 2 * kWidth}));
      // Expert 1, input 3: gate of unit 5 lies in front of up of unit 5.
      const auto at = static_cast<size_t>((kHidden + 3) * 2 * kWidth + 10);
      EXPECT_EQ(file[at], static_cast<float>((2 * kWidth + 5) * kHidden + 3));
      EXPECT_EQ(file[at + 1], static_cast<float>((2 * kWidth + kWidth + 5) * kHidden + 3));
    }
  }
  EXPECT_EQ(stacked, 2 * 3) << "down, gate_up and its bias of each layer";
}

// A safetensors file by hand: WriteSafetensors has no bytes.
class FileOf {
 public:
  void Add(const std::string& name, const char* type, const std::vector<int64_t>& shape,
           const std::string& bytes) {
    header_[name] = {{"dtype", type},
                     {"shape", shape},
                     {"data_offsets", {data_.size(), data_.size() + bytes.size()}}};
    data_ += bytes;
  }
  void Write(const std::string& path) const {
    std::string text = header_.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const uint64_t n = text.size();
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&n), 8);
    out << text << data_;
  }

 private:
  Json header_;
  std::string data_;
};

std::string Bytes(const TensorView& v) {
  return {reinterpret_cast<const char*>(v.bytes.data()), v.bytes.size()};
}

TEST(StackedTensor, Mxfp4IsReadAsTheNumbersThatItStandsFor) {
  const testing::TempFolder plain, packed;
  Weights weights(Shape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.2);
  SaveModelDirectory(weights, plain.path(), "");
  Json config = Json::parse(RealFileSystem().ReadFile(plain / "config.json", 1 << 20));
  config["quantization_config"] = {{"quant_method", "mxfp4"}};
  RealFileSystem().WriteFileAtomic(packed / "config.json", config.dump());
  constexpr float kValues[] = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6};
  RandomStream random(1, 1);
  FileOf file, without_scales;
  // What each expert's matrix [out, in] of the file is to be, gate and up in turns.
  std::map<std::string, std::vector<float>> want;
  const auto reader = SafetensorsReader::OpenDirectory(plain.path());
  for (const auto& [name, view] : reader->tensors()) {
    const bool gate_up = name.ends_with("gate_up_proj");
    if (!gate_up && !name.ends_with("experts.down_proj")) {
      file.Add(name, "F32", view.shape, Bytes(view));
      without_scales.Add(name, "F32", view.shape, Bytes(view));
      continue;
    }
    const int64_t rows = gate_up ? 2 * kWidth : kHidden, columns = gate_up ? kHidden : kWidth;
    std::string blocks, scales;
    for (int64_t r = 0; r < kExperts * rows; ++r) {
      for (int64_t g = 0; g < columns / 32; ++g) {
        const int exponent = static_cast<int>(random.NextBelow(9)) - 6;
        scales.push_back(static_cast<char>(127 + exponent));
        for (int i = 0; i < 16; ++i) {
          const uint32_t two = random.NextBelow(256);
          blocks.push_back(static_cast<char>(two));
          for (const uint32_t four : {two & 15, two >> 4}) {
            want[name].push_back(std::ldexp(kValues[four & 7], exponent) *
                                 (four & 8 ? -1.0F : 1.0F));
          }
        }
      }
    }
    file.Add(name + "_blocks", "U8", {kExperts, rows, columns / 32, 16}, blocks);
    file.Add(name + "_scales", "U8", {kExperts, rows, columns / 32}, scales);
    without_scales.Add(name + "_blocks", "U8", {kExperts, rows, columns / 32, 16}, blocks);
  }
  file.Write(packed / "model.safetensors");
  ::testing::internal::CaptureStderr();
  const ModelShape shape = ReadModelConfig(packed.path());
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("MXFP4"), std::string::npos);
  EXPECT_EQ(shape, weights.shape());
  EXPECT_TRUE(WhyNotLoadable(TensorTable(shape), packed.path()).empty());
  Weights read(shape, Device::kCpu, DType::kFloat32);
  read.Load(packed.path());
  for (const TensorEntry& e : read.table().entries()) {
    const auto found = want.find(e.parts[0].file_tensor);
    if (found == want.end()) continue;
    const int64_t rows = e.shape[0] / kExperts, columns = e.columns(), half = rows / 2;
    for (int64_t x = 0; x < kExperts; ++x) {
      for (int64_t r = 0; r < rows; ++r) {
        const bool turns = e.parts[0].in_turns;
        const int64_t in_file = !turns ? r : r < half ? 2 * r : 2 * (r - half) + 1;
        for (int64_t c = 0; c < columns; ++c) {
          ASSERT_EQ(read.flat().f32()[e.offset + (x * rows + r) * columns + c],
                    found->second[static_cast<size_t>((x * rows + in_file) * columns + c)])
              << e.name << " " << x << " " << r << " " << c;
        }
      }
    }
  }
  // Written back as plain numbers, and read again as they are.
  const testing::TempFolder again;
  SaveModelDirectory(read, again.path(), "");
  Weights back(ReadModelConfig(again.path()), Device::kCpu, DType::kFloat32);
  back.Load(again.path());
  EXPECT_EQ(back.ComputeDigest(), read.ComputeDigest());
  // Half of it, or of another shape.
  std::filesystem::remove(packed / "model.safetensors");
  without_scales.Write(packed / "model.safetensors");
  EXPECT_FALSE(WhyNotLoadable(TensorTable(shape), packed.path()).empty());
  try {
    read.Load(packed.path());
    ADD_FAILURE() << "loaded without scales";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("needs both _blocks and _scales"), std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace plumb::policy_model
