// The real SmolLM2-135M-Instruct: its tokenizer and template against Hugging Face's libraries
// (tests/golden/smollm2.json, written by make_smollm2_golden.py). Skipped without the model:
// tools/fetch_smollm2.sh.
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash/sha256.h"
#include "common/base/json/strict_json.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"
#include "policy_model/families/model_config.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/gguf/convert.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::ordered_json;
const char kModel[] = PLUMB_SOURCE_DIR "/models/SmolLM2-135M-Instruct";
const char kGguf[] = PLUMB_SOURCE_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
const char kData[] = PLUMB_SOURCE_DIR "/../shared/data";

class SmolLm2 : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(std::string(kModel) + "/config.json")) {
      if (!std::filesystem::exists(kGguf))
        GTEST_SKIP() << "NOT TESTED: no " << kGguf << "; run tools/fetch_smollm2.sh";
      ConvertGguf(kGguf, kModel, DType::kFloat32, false);
    }
    golden_ = ReadStrictJson(PLUMB_SOURCE_DIR "/tests/golden/smollm2.json", 1 << 20);
  }
  Json golden_;
};

std::string Unzip(const std::string& path) {
  std::string out;
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) throw Error(ErrorCode::kIo, "cannot open", path);
  std::vector<char> buffer(1 << 16);
  for (int n; (n = gzread(file, buffer.data(), static_cast<unsigned>(buffer.size()))) > 0;)
    out.append(buffer.data(), static_cast<size_t>(n));
  gzclose(file);
  return out;
}

TEST_F(SmolLm2, EveryTextOfTheDataSetsHasTheReferencesIds) {
  const auto tokenizer = Tokenizer::Load(kModel);
  int files = 0;
  for (const auto& [name, expected] : golden_["files"].items()) {
    const std::string path = std::string(kData) + "/" + name;
    if (!std::filesystem::exists(path)) continue;
    ++files;
    const std::string all = Unzip(path);
    Sha256 digest;
    int64_t texts = 0, tokens = 0, wrong = 0;
    for (size_t at = 0; at < all.size();) {
      const size_t end = std::min(all.find('\n', at), all.size());
      const auto row = nlohmann::json::parse(all.begin() + static_cast<ptrdiff_t>(at),
                                             all.begin() + static_cast<ptrdiff_t>(end));
      at = end + 1;
      for (const auto& [key, value] : row.items()) {  // nlohmann::json sorts the keys
        if (!value.is_string()) continue;
        const auto& text = value.get_ref<const std::string&>();
        const auto ids = tokenizer->Encode(text);
        wrong += tokenizer->Decode(ids) != text;
        const auto count = static_cast<int32_t>(ids.size());
        digest.Update(std::as_bytes(std::span(&count, 1)));
        digest.Update(std::as_bytes(std::span(ids)));
        ++texts;
        tokens += count;
      }
    }
    EXPECT_EQ(texts, expected["texts"].get<int64_t>()) << name;
    EXPECT_EQ(tokens, expected["tokens"].get<int64_t>()) << name;
    EXPECT_EQ(digest.HexDigest(), expected["sha256"].get<std::string>()) << name;
    EXPECT_EQ(wrong, 0) << name << ": texts that do not decode to themselves";
  }
  if (files == 0) GTEST_SKIP() << "NOT TESTED: no data sets in " << kData;
}

TEST_F(SmolLm2, OddTextsHaveTheReferencesIds) {
  const auto tokenizer = Tokenizer::Load(kModel);
  ASSERT_GE(golden_["texts"].size(), 8u);
  for (const Json& t : golden_["texts"]) {
    const auto ids = tokenizer->Encode(t["text"].get<std::string>());
    EXPECT_EQ(ids, t["ids"].get<std::vector<int32_t>>()) << t["text"];
    EXPECT_EQ(tokenizer->Decode(ids, true), t["decoded"].get<std::string>());
  }
}

TEST_F(SmolLm2, SpecialTokensAreTextUnlessAllowed) {
  const auto tokenizer = Tokenizer::Load(kModel);
  EXPECT_EQ(tokenizer->size(), 49152);
  EXPECT_EQ(tokenizer->Find("<|im_end|>"), 2);
  EXPECT_TRUE(tokenizer->IsSpecial(2));
  EXPECT_EQ(tokenizer->Encode("<|im_end|>"), std::vector<int32_t>{2});
  const auto plain = tokenizer->Encode("<|im_end|>", false);
  EXPECT_GT(plain.size(), 1u);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), 2), 0);
  EXPECT_EQ(tokenizer->Decode(plain), "<|im_end|>");
}

TEST_F(SmolLm2, ThreadsGetTheSameIds) {
  const auto tokenizer = Tokenizer::Load(kModel);
  std::string text;
  for (int i = 0; i < 2000; ++i)
    text += "word" + std::to_string(i * 7919) + (i % 3 ? " and\n" : " größer ");
  const auto expected = Tokenizer::Load(kModel)->Encode(text);
  std::vector<std::vector<int32_t>> out(4);
  {
    std::vector<std::jthread> threads;
    for (auto& ids : out) threads.emplace_back([&] { ids = tokenizer->Encode(text); });
  }
  for (const auto& ids : out) EXPECT_EQ(ids, expected);
}

TEST_F(SmolLm2, ChatsRenderAsTheReference) {
  const auto chat = ChatTemplate::LoadOrNull(kModel);
  ASSERT_NE(chat, nullptr);
  ASSERT_FALSE(golden_["chats"].empty());
  for (const Json& c : golden_["chats"]) {
    std::vector<Message> messages;
    for (const Json& m : c["messages"])
      messages.push_back({m["role"].get<std::string>(), m["content"].get<std::string>()});
    EXPECT_EQ(chat->Render(messages, c["add_generation_prompt"].get<bool>()),
              c["text"].get<std::string>());
  }
}

TEST_F(SmolLm2, TheConvertedFolderIsWhole) {
  const ModelShape shape = ReadModelConfig(kModel);
  EXPECT_EQ(shape.layers, 30);
  EXPECT_EQ(shape.heads, 9);
  EXPECT_EQ(shape.kv_heads, 3);
  EXPECT_EQ(shape.norm_eps, 1e-5);
  EXPECT_EQ(shape.rope_theta, 100000);
  EXPECT_TRUE(shape.tied);
  EXPECT_EQ(shape.eos_tokens, std::vector<int32_t>{2});
  const auto weights = SafetensorsReader::OpenDirectory(kModel);
  EXPECT_EQ(weights->tensors().size(), 272u);
  EXPECT_EQ(weights->tensors().at("model.layers.29.mlp.down_proj.weight").shape,
            (std::vector<int64_t>{576, 1536}));
  // never over a model, and that is no GGUF file
  EXPECT_THROW(ConvertGguf(kModel, kModel, DType::kFloat32, false), Error);
}

}  // namespace
}  // namespace plumb::policy_model
