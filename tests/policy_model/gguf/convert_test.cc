// GGUF files made here: every element type against values worked out by hand, the whole conversion,
// and broken files.
#include "policy_model/gguf/convert.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"
#include "policy_model/families/model_config.h"
#include "policy_model/families/rope_frequencies.h"
#include "policy_model/files/gguf_reader.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/gguf/shape_keys.h"
#include "tests/testing/gguf_maker.h"

namespace plumb::policy_model {
namespace {

using plumb::testing::Floats;
using plumb::testing::Raw;
using plumb::testing::TinyGguf;
using Maker = plumb::testing::GgufMaker;

class Gguf : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string Save(const std::string& bytes) {
    RealFileSystem().OpenAppend(folder_ + "/model.gguf", true)->Append(bytes);
    return folder_ + "/model.gguf";
  }
  void Refuses(const std::string& bytes, ErrorCode code, const std::string& what) {
    try {
      ConvertGguf(Save(bytes), out_, DType::kFloat32, false);
      ADD_FAILURE() << "accepted, but " << what;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("model.gguf"), std::string::npos) << e.what();
    }
    EXPECT_FALSE(std::filesystem::exists(out_ + "/config.json"));
  }
  std::vector<float> Read(const SafetensorsReader& weights, const std::string& name) {
    const auto bytes = weights.tensors().at(name).bytes;
    std::vector<float> out(bytes.size() / 4);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  const std::string folder_ = ::testing::TempDir() + "/gguf_" + std::to_string(getpid());
  const std::string out_ = folder_ + "/out";
};

TEST_F(Gguf, DequantisesEveryType) {
  const auto values = [](GgufType type, const std::string& bytes, size_t n) {
    std::vector<float> out(n);
    Dequantize(type, std::as_bytes(std::span(bytes.data(), bytes.size())), out);
    return out;
  };
  EXPECT_EQ(values(GgufType::kF32, Raw(1.5f) + Raw(-2.0f), 2), (std::vector<float>{1.5f, -2.0f}));
  // 1.0, -2.5, the smallest subnormal, the largest, infinity, -0.
  const auto half =
      values(GgufType::kF16,
             Raw<uint16_t>(0x3C00) + Raw<uint16_t>(0xC100) + Raw<uint16_t>(1) +
                 Raw<uint16_t>(0x7BFF) + Raw<uint16_t>(0x7C00) + Raw<uint16_t>(0x8000),
             6);
  EXPECT_EQ(half, (std::vector<float>{1.0f, -2.5f, 0x1p-24f, 65504.0f, INFINITY, -0.0f}));
  EXPECT_TRUE(std::signbit(half[5]));
  EXPECT_TRUE(std::isnan(values(GgufType::kF16, Raw<uint16_t>(0x7E01), 1)[0]));
  EXPECT_EQ(values(GgufType::kBF16, Raw<uint16_t>(0x3FC0), 1), std::vector<float>{1.5f});
  std::string q8 = Raw<uint16_t>(0x3800);  // 0.5
  for (int i = 0; i < 32; ++i) q8 += static_cast<char>(i * 8 - 128);
  const auto v8 = values(GgufType::kQ8_0, q8, 32);
  for (int i = 0; i < 32; ++i)
    EXPECT_EQ(v8[static_cast<size_t>(i)], 0.5f * static_cast<float>(i * 8 - 128));
  std::string nibbles;
  for (int i = 0; i < 16; ++i) nibbles += static_cast<char>(i | (15 - i) << 4);
  // scale 2
  const auto v40 = values(GgufType::kQ4_0, Raw<uint16_t>(0x4000) + nibbles, 32);
  // scale 2, minimum -1
  const auto v41 =
      values(GgufType::kQ4_1, Raw<uint16_t>(0x4000) + Raw<uint16_t>(0xBC00) + nibbles, 32);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(v40[static_cast<size_t>(i)], 2.0f * static_cast<float>(i - 8));
    EXPECT_EQ(v40[static_cast<size_t>(i + 16)], 2.0f * static_cast<float>(7 - i));
    EXPECT_EQ(v41[static_cast<size_t>(i)], 2.0f * static_cast<float>(i) - 1.0f);
    EXPECT_EQ(v41[static_cast<size_t>(i + 16)], 2.0f * static_cast<float>(15 - i) - 1.0f);
  }
}

TEST_F(Gguf, ConvertsAWholeModel) {
  ConvertGguf(Save(TinyGguf().File()), out_, DType::kFloat32, false);
  const ModelShape s = ReadModelConfig(out_);
  EXPECT_EQ(s.layers, 1);
  EXPECT_EQ(s.head_dim, 4);
  EXPECT_EQ(s.rope_theta, 5000);
  EXPECT_EQ(s.norm_eps, 1e-5);
  EXPECT_TRUE(s.tied);
  EXPECT_EQ(s.eos_tokens, std::vector<int32_t>{1});
  const auto weights = SafetensorsReader::OpenDirectory(out_);
  EXPECT_EQ(weights->tensors().size(), 11u);
  EXPECT_EQ(Read(*weights, "model.layers.0.mlp.down_proj.weight")[47], 747.0f);
  // Rows 0..3 of a head of the file are (j, half) = (0,0) (0,1) (1,0) (1,1): they go to rows 0, 2,
  // 1, 3.
  const auto q = Read(*weights, "model.layers.0.self_attn.q_proj.weight");
  const std::vector<size_t> source = {0, 2, 1, 3, 4, 6, 5, 7};
  for (size_t row = 0; row < 8; ++row)
    EXPECT_EQ(q[row * 8], 100.0f + 8.0f * static_cast<float>(source[row])) << row;
  const auto v = Read(*weights, "model.layers.0.self_attn.v_proj.weight");
  EXPECT_EQ(v[8], 308.0f);
  const auto tokenizer = Tokenizer::Load(out_);
  EXPECT_EQ(tokenizer->Encode("<s>ab a1<e>"), (std::vector<int32_t>{0, 4, 5, 2, 6, 1}));
  const std::vector<Message> messages = {{"user", "hi"}};
  EXPECT_EQ(ChatTemplate::LoadOrNull(out_)->Render(messages, true), "<s>hi");
}

TEST_F(Gguf, ConvertsQwenWithBiasesAndRoundsToBfloat16) {
  ConvertGguf(Save(TinyGguf("qwen2").File()), out_, DType::kBFloat16, false);
  EXPECT_TRUE(ReadModelConfig(out_).attention_bias);
  const auto weights = SafetensorsReader::OpenDirectory(out_);
  EXPECT_EQ(weights->tensors().size(), 14u);
  const TensorView& q = weights->tensors().at("model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(q.dtype, DType::kBFloat16);
  BFloat16 second_row{};
  std::memcpy(&second_row, q.bytes.data() + 16, 2);
  EXPECT_EQ(ToFloat(second_row), 108.0f) << "rows of this family are not permuted";
}

// Divisors as llama.cpp's converter computes them for Llama 3.1 and 3.2, and others.
TEST_F(Gguf, FindsTheStretchingBehindDivisors) {
  const auto converted = [&](const std::vector<float>& divisors, uint32_t original) {
    Maker m;
    m.Word("general.architecture", "llama");
    m.Integer("llama.block_count", 1);
    m.Integer("llama.context_length", 131072);
    m.Integer("llama.embedding_length", 128);
    m.Integer("llama.feed_forward_length", 2);
    m.Integer("llama.attention.head_count", 1);
    m.Value("llama.rope.freq_base", plumb::testing::kGgufF32, Raw(500000.0f));
    m.Value("llama.attention.layer_norm_rms_epsilon", plumb::testing::kGgufF32, Raw(1e-5f));
    if (original > 0) m.Integer("llama.rope.scaling.original_context_length", original);
    std::string bytes;
    for (const float d : divisors) bytes += Raw(d);
    m.Tensor("rope_freqs.weight", {64}, 0, bytes);
    m.Tensor("token_embd.weight", {128, 4}, 0, Floats(512, 0));
    return ShapeOf(*GgufReader::Open(Save(m.File())));
  };
  const auto divisors = [](double factor, double high, double original) {
    std::vector<float> out;
    for (int i = 0; i < 64; ++i) {
      const double wave = 2 * M_PI * std::pow(500000.0, i / 64.0);
      const double share = (original / wave - 1) / (high - 1);
      out.push_back(static_cast<float>(wave < original / high ? 1
                                       : wave > original      ? factor
                                                         : 1 / ((1 - share) / factor + share)));
    }
    return out;
  };
  for (const double factor : {8.0, 32.0}) {
    const ModelShape s = converted(divisors(factor, 4, 8192), 0);
    EXPECT_EQ(
        s.rope,
        (RopeScaling{.kind = RopeKind::kLlama3, .factor = factor, .original_positions = 8192}));
  }
  // Of another length, which the file names or which follows.
  for (const uint32_t named : {4096u, 0u}) {
    const ModelShape s = converted(divisors(4, 3, 4096), named);
    EXPECT_EQ(
        s.rope,
        (RopeScaling{
            .kind = RopeKind::kLlama3, .factor = 4, .original_positions = 4096, .high_freq = 3}));
  }
  EXPECT_EQ(converted(std::vector<float>(64, 1.0f), 0).rope, RopeScaling{});
  // Of no formula: as longrope has them, the same at all lengths, and no factor of the cosines.
  std::vector<float> odd(64);
  for (size_t i = 0; i < odd.size(); ++i) odd[i] = 1.0f + static_cast<float>(i % 7);
  const ModelShape s = converted(odd, 0);
  EXPECT_EQ(s.rope.kind, RopeKind::kLongRope);
  EXPECT_EQ(s.rope.attention_factor, 1);
  const RotarySpec plain = RotaryOf({}, s.rope_theta, 128, s.max_positions),
                   turned = RotaryOf(s.rope, s.rope_theta, 128, s.max_positions);
  EXPECT_EQ(turned.factor, 1);
  for (size_t i = 0; i < odd.size(); ++i) {
    EXPECT_DOUBLE_EQ(plain.frequencies[i] / turned.frequencies[i], static_cast<double>(odd[i]));
  }
}

TEST_F(Gguf, NeverWritesOverAModelUnasked) {
  const std::string path = Save(TinyGguf().File());
  ConvertGguf(path, out_, DType::kFloat32, false);
  try {
    ConvertGguf(path, out_, DType::kFloat32, false);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("--overwrite"), std::string::npos) << e.message();
  }
  EXPECT_NO_THROW(ConvertGguf(path, out_, DType::kFloat32, true));
  // A bad input takes nothing away, even with leave to overwrite.
  EXPECT_THROW(ConvertGguf(Save("GGUF"), out_, DType::kFloat32, true), Error);
  EXPECT_NO_THROW(ReadModelConfig(out_));
}

TEST_F(Gguf, RefusesByName) {
  const ErrorCode corrupt = ErrorCode::kCorruption, unsupported = ErrorCode::kUnsupported;
  Refuses("nothing of the kind", corrupt, "not a GGUF");
  Refuses("GGUF" + Raw<uint32_t>(1) + std::string(16, '\0'), unsupported, "version 1");
  Refuses("GGUF" + Raw<uint32_t>(3) + Raw<uint64_t>(1) + Raw(~uint64_t{0}), corrupt, "65536 keys");
  Refuses("GGUF" + Raw<uint32_t>(3) + Raw<uint64_t>(0) + Raw<uint64_t>(1) + Raw(~uint64_t{0}),
          corrupt, "bytes");
  Maker m = TinyGguf();
  m.Tensor("blk.0.extra.weight", {4}, 0, Floats(4, 0));
  Refuses(m.File(), unsupported, "1 tensors");
  m = TinyGguf();
  m.Tensor("rope_freqs.weight", {4}, 0, Floats(4, 1));
  Refuses(m.File(), corrupt, "rope_freqs.weight is not 2 numbers");
  m = TinyGguf();
  m.Tensor("rope_freqs.weight", {2}, 0, Floats(2, 0));
  Refuses(m.File(), corrupt, "positive numbers");
  m = TinyGguf();
  m.Tensor("rope_factors_long.weight", {2}, 0, Floats(2, 1));
  Refuses(m.File(), unsupported, "phi3 only");
  m = TinyGguf();
  m.Tensor("x", {256}, 19, std::string(50, 'x'));
  Refuses(m.File(), unsupported, "type 19");
  m = TinyGguf();
  m.Tensor("x", {uint64_t{1} << 39, uint64_t{1} << 39}, 0, "");
  Refuses(m.File(), corrupt, "overflows");
  m = TinyGguf();
  m.Tensor("x", {33}, 8, std::string(68, 'x'));
  Refuses(m.File(), corrupt, "whole blocks");
  m = TinyGguf();
  m.Tensor("output_norm.weight", {8}, 0, Floats(8, 3));
  Refuses(m.File(), corrupt, "twice");
  m = TinyGguf();
  m.Word("general.architecture", "llama");
  Refuses(m.File(), corrupt, "twice");
  Refuses(TinyGguf("gemma").File(), unsupported, "gemma");
  m = TinyGguf();
  m.Word("llama.rope.scaling.type", "spiral");
  Refuses(m.File(), unsupported, "spiral");
  m = TinyGguf();
  m.Integer("llama.rope.dimension_count", 2);
  Refuses(m.File(), unsupported, "part of a head");
  m = TinyGguf();
  m.Integer("llama.expert_count", 8);
  Refuses(m.File(), unsupported, "experts");
  m = TinyGguf();
  m.Tensor("blk.0.attn_output.bias", {8}, 0, Floats(8, 0));
  Refuses(m.File(), unsupported, "biases");
  m = TinyGguf("qwen2");
  m.Integer("qwen2.attention.sliding_window", 4);
  Refuses(m.File(), unsupported, "sliding_window");
  Maker empty;
  empty.Word("general.architecture", "llama");
  Refuses(empty.File(), corrupt, "llama.block_count");
}

TEST_F(Gguf, EveryCutOfAFileIsAnError) {
  const std::string whole = TinyGguf().File();
  for (size_t n = 0; n < whole.size(); n += n < 400 ? 1 : 37) {
    EXPECT_THROW(GgufReader::Open(Save(whole.substr(0, n))), Error) << n;
  }
  // Any byte of the header turned around: an error or a model, never a crash.
  const size_t header = whole.size() - TinyGguf().data.size();
  for (size_t n = 0; n < header; n += 3) {
    std::string bytes = whole;
    bytes[n] = static_cast<char>(~bytes[n]);
    try {
      GgufReader::Open(Save(bytes));
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace plumb::policy_model
