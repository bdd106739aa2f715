// Tokenizers in GGUF files: SentencePiece BPE against SentencePiece itself
// (tests/golden/make_gguf_tokenizer_golden.py), the names of pre-tokenizers, begin and end tokens;
// the files that are written in the hands of `tokenizers`, where an interpreter with it is named
// (CONTRIBUTING.md).
#include "policy_model/gguf/tokenizer_files.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/text/tokenizer/tokenizer.h"
#include "tests/testing/gguf_maker.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::ordered_json;
using plumb::testing::GgufMaker;
using plumb::testing::Raw;

Json Golden() {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/gguf_tokenizer.json");
  EXPECT_TRUE(file.good());
  return Json::parse(file);
}

template <class T>
std::string List(uint32_t type, const std::vector<T>& values) {
  std::string out = Raw(type) + Raw<uint64_t>(values.size());
  for (const T v : values) out += Raw(v);
  return out;
}

class TokenizerFiles : public ::testing::Test {
 protected:
  std::unique_ptr<GgufReader> Open(const GgufMaker& m) {
    const std::string path = temp_ / ("t" + std::to_string(files_++) + ".gguf");
    RealFileSystem().OpenAppend(path, true)->Append(m.File());
    return GgufReader::Open(path);
  }
  static GgufMaker SentencePiece(const Json& model) {
    GgufMaker m;
    m.Word("tokenizer.ggml.model", "llama");
    m.Words("tokenizer.ggml.tokens", model["tokens"].get<std::vector<std::string>>());
    m.Value("tokenizer.ggml.scores", plumb::testing::kGgufArray,
            List(plumb::testing::kGgufF32, model["scores"].get<std::vector<float>>()));
    m.Value("tokenizer.ggml.token_type", plumb::testing::kGgufArray,
            List(plumb::testing::kGgufI32, model["types"].get<std::vector<int32_t>>()));
    m.Value("tokenizer.ggml.add_space_prefix", kBool, Raw(model["add_space_prefix"].get<bool>()));
    return m;
  }
  static GgufMaker BytePairs(const std::string& pre) {
    GgufMaker m;
    m.Word("tokenizer.ggml.model", "gpt2");
    m.Word("tokenizer.ggml.pre", pre);
    m.Words("tokenizer.ggml.tokens", {"<s>", "</s>", "a", "b", "ab", "\u0120", "1"});
    m.Value("tokenizer.ggml.token_type", plumb::testing::kGgufArray,
            List<int32_t>(plumb::testing::kGgufI32, {3, 3, 1, 1, 1, 1, 1}));
    m.Words("tokenizer.ggml.merges", {"a b"});
    return m;
  }
  static ModelShape Shape(int64_t vocab, int32_t bos, int32_t eos) {
    ModelShape s;
    s.vocab = vocab;
    s.bos_token = bos;
    s.eos_tokens = {eos};
    return s;
  }
  static ModelShape ShapeOfGolden(const Json& model) {
    return Shape(static_cast<int64_t>(model["tokens"].size()), model["bos"], model["eos"]);
  }
  // An answer of encodes_texts.py for each job; empty, and the test skipped, without Python.
  Json Ask(const Json& jobs) {
    const char* python = std::getenv("PLUMB_TEST_FRAMEWORKS_PYTHON");
    if (python == nullptr) return nullptr;
    RealFileSystem().WriteFileAtomic(temp_ / "jobs.json", jobs.dump());
    const std::string command = std::string("'") + python +
                                "' " PLUMB_SOURCE_DIR
                                "/tests/policy_model/python/encodes_texts.py " +
                                (temp_ / "jobs.json") + " " + (temp_ / "answers.json");
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    std::ifstream in(temp_ / "answers.json");
    return Json::parse(in);
  }
  Json Job(const std::string& json, const Json& texts) {
    const std::string path = temp_ / ("tokenizer" + std::to_string(files_++) + ".json");
    RealFileSystem().WriteFileAtomic(path, json);
    return {{"tokenizer", path}, {"texts", texts}};
  }
  static constexpr uint32_t kBool = 7;
  int files_ = 0;
  plumb::testing::TempFolder temp_;
};

constexpr const char* kNotTested =
    "NOT TESTED: PLUMB_TEST_FRAMEWORKS_PYTHON names no interpreter with tokenizers";

TEST_F(TokenizerFiles, SentencePieceIsByteFallbackWithMergesByScore) {
  const Json golden = Golden();
  for (const auto& [name, model] : golden.items()) {
    const auto in = Open(SentencePiece(model));
    const Json j = Json::parse(TokenizerJson(*in, ShapeOfGolden(model)));
    EXPECT_EQ(j["model"]["byte_fallback"], true);
    EXPECT_EQ(j["model"]["unk_token"], "<unk>");
    EXPECT_EQ(j["model"]["vocab"].size(), model["tokens"].size());
    EXPECT_EQ(j["normalizer"]["type"], name == "llama" ? "Sequence" : "Replace");
    EXPECT_EQ(j["decoder"]["decoders"].size(), name == "llama" ? 4u : 3u);
    EXPECT_EQ(j["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
    // Every merge makes a token, and the tokens come in the order of their scores.
    double last = 1e9;
    for (const Json& merge : j["model"]["merges"]) {
      const std::string made = merge[0].get<std::string>() + merge[1].get<std::string>();
      ASSERT_TRUE(j["model"]["vocab"].contains(made)) << made;
      const double score = model["scores"][j["model"]["vocab"][made].get<size_t>()];
      EXPECT_LE(score, last) << made;
      last = score;
    }
    size_t added = 0;
    for (const Json& type : model["types"]) added += type >= 2 && type <= 4 ? 1 : 0;
    EXPECT_EQ(j["added_tokens"].size(), added);
  }
}

TEST_F(TokenizerFiles, SentencePieceHasItsIdsHere) {
  const Json golden = Golden();
  for (const auto& [name, model] : golden.items()) {
    const auto in = Open(SentencePiece(model));
    const auto tokenizer = Tokenizer::Parse(TokenizerJson(*in, ShapeOfGolden(model)), name);
    for (const Json& t : model["texts"]) {
      EXPECT_EQ(tokenizer->Encode(t["text"].get<std::string>()),
                t["ids"].get<std::vector<int32_t>>())
          << name << ": " << t["text"];
    }
  }
}

TEST_F(TokenizerFiles, SentencePieceHasItsIdsInInstalledTokenizers) {
  const Json golden = Golden();
  Json jobs = Json::array();
  for (const auto& [name, model] : golden.items()) {
    const auto in = Open(SentencePiece(model));
    Json texts = Json::array();
    for (const Json& t : model["texts"]) texts.push_back(t["text"]);
    jobs.push_back(Job(TokenizerJson(*in, ShapeOfGolden(model)), texts));
  }
  const Json answers = Ask(jobs);
  if (answers.is_null()) GTEST_SKIP() << kNotTested;
  size_t job = 0;
  for (const auto& [name, model] : golden.items()) {
    for (size_t i = 0; i < model["texts"].size(); ++i) {
      const Json& want = model["texts"][i];
      Json with_begin = Json::array({model["bos"]});
      for (const Json& id : want["ids"]) with_begin.push_back(id);
      EXPECT_EQ(answers[job][i][0], want["ids"]) << name << ": " << want["text"];
      EXPECT_EQ(answers[job][i][1], with_begin) << name << ": " << want["text"];
      EXPECT_EQ(answers[job][i][2], want["decoded"]) << name << ": " << want["text"];
    }
    ++job;
  }
}

TEST_F(TokenizerFiles, EveryKnownPreTokenizerIsReadByInstalledTokenizers) {
  // What a text falls into, for each way to cut: digits alone, in threes, or all; capitals.
  const struct {
    const char* name;
    const char* digits;  // tokens of "1111"
    bool begins;
  } known[] = {
      {"gpt-2", "1111", false},        {"olmo", "1111", false},      {"smollm", "1 1 1 1", false},
      {"starcoder", "1 1 1 1", false}, {"refact", "1 1 1 1", false}, {"qwen2", "1 1 1 1", false},
      {"dbrx", "111 1", false},        {"llama-bpe", "111 1", true}, {"glm4", "111 1", false},
      {"chatglm-bpe", "111 1", false}, {"gpt-4o", "111 1", false},   {"tekken", "1 1 1 1", true}};
  Json jobs = Json::array();
  for (const auto& pre : known) {
    GgufMaker m = BytePairs(pre.name);
    Json j = Json::parse(TokenizerJson(*Open(m), Shape(7, 0, 1)));
    EXPECT_EQ(j["post_processor"]["type"], pre.begins ? "Sequence" : "ByteLevel") << pre.name;
    // Tokens of two and more, so that cuts show.
    for (const char* made : {"11", "111", "1111"})
      j["model"]["vocab"][made] = j["model"]["vocab"].size();
    j["model"]["merges"] = {"a b", "1 1", "11 1", "11 11"};
    jobs.push_back(Job(j.dump(), {"1111", "ab ab"}));
  }
  const Json answers = Ask(jobs);
  if (answers.is_null()) GTEST_SKIP() << kNotTested;
  for (size_t i = 0; i < answers.size(); ++i) {
    Json want = Json::array();
    std::string digits = known[i].digits;
    for (size_t at = 0, end; at < digits.size(); at = end + 1) {
      end = std::min(digits.find(' ', at), digits.size());
      want.push_back(end - at == 1 ? 6 : static_cast<int>(end - at) + 5);
    }
    EXPECT_EQ(answers[i][0][0], want) << known[i].name;
    EXPECT_EQ(answers[i][1][0], Json({4, 5, 4})) << known[i].name;
    EXPECT_EQ(answers[i][0][2], "1111") << known[i].name;
  }
}

TEST_F(TokenizerFiles, BeginAndEndTokensAreAsTheFileSays) {
  const auto processor = [&](std::optional<bool> begin, std::optional<bool> end,
                             const std::string& pre) {
    GgufMaker m = BytePairs(pre);
    if (begin) m.Value("tokenizer.ggml.add_bos_token", kBool, Raw(*begin));
    if (end) m.Value("tokenizer.ggml.add_eos_token", kBool, Raw(*end));
    return Json::parse(TokenizerJson(*Open(m), Shape(7, 0, 1)))["post_processor"];
  };
  EXPECT_EQ(processor({}, {}, "qwen2")["type"], "ByteLevel");
  EXPECT_EQ(processor(false, {}, "llama-bpe")["type"], "ByteLevel");
  const Json both = processor(true, true, "qwen2")["processors"][1];
  EXPECT_EQ(both["type"], "TemplateProcessing");
  ASSERT_EQ(both["single"].size(), 3u);
  EXPECT_EQ(both["single"][0]["SpecialToken"]["id"], "<s>");
  EXPECT_EQ(both["single"][1]["Sequence"]["id"], "A");
  EXPECT_EQ(both["single"][2]["SpecialToken"]["id"], "</s>");
  EXPECT_EQ(both["pair"].size(), 6u);
  EXPECT_EQ(both["special_tokens"]["</s>"]["ids"], Json({1}));
}

TEST_F(TokenizerFiles, RefusesByName) {
  const auto refuses = [&](const GgufMaker& m, ErrorCode code, const std::string& what) {
    try {
      TokenizerJson(*Open(m), Shape(7, 0, 1));
      ADD_FAILURE() << "accepted, but " << what;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
    }
  };
  refuses(BytePairs("martian"), ErrorCode::kUnsupported,
          "'martian' is not known here; known: gpt-2");
  GgufMaker m;
  m.Word("tokenizer.ggml.model", "bert");
  refuses(m, ErrorCode::kUnsupported, "bert");
  Json model = {{"tokens", {"<unk>", "a", "b", "ab"}},
                {"scores", {0, 0, -1, -2}},
                {"types", {2, 1, 1, 1}},
                {"add_space_prefix", true}};
  Json changed = model;
  changed["scores"] = {0, 0, 0};
  refuses(SentencePiece(changed), ErrorCode::kCorruption, "scores is not a number for each token");
  changed = model;
  changed["types"] = {2, 1, 1, 9};
  refuses(SentencePiece(changed), ErrorCode::kCorruption, "unknown type 9");
  changed = model;
  changed["tokens"] = {"<unk>", "a", "b", "\xff"};
  refuses(SentencePiece(changed), ErrorCode::kCorruption, "UTF-8");
  m = SentencePiece(model);
  m.Integer("tokenizer.ggml.unknown_token_id", 4);
  refuses(m, ErrorCode::kCorruption, "unknown_token_id");
  // No tokens for bytes: what has no token is the unknown one.
  const Json j = Json::parse(TokenizerJson(*Open(SentencePiece(model)), Shape(7, 0, 1)));
  EXPECT_EQ(j["model"]["byte_fallback"], false);
  EXPECT_EQ(j["model"]["merges"], Json::parse(R"([["a","b"]])"));
}

}  // namespace
}  // namespace plumb::policy_model
