// Every kind of tokenizer.json that is read, against Hugging Face's tokenizers
// (tests/golden/tokenizer_kinds.json, written by make_tokenizer_kinds_golden.py): ids, what the
// post-processor puts around them, decoding whole and token by token.
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/base/error.h"
#include "common/base/json/strict_json.h"
#include "common/base/rng.h"
#include "common/text/tokenizer/decoder.h"
#include "common/text/tokenizer/normalizer.h"
#include "common/text/tokenizer/post_processor.h"
#include "common/text/tokenizer/precompiled_map.h"
#include "common/text/tokenizer/split_pattern.h"
#include "common/text/tokenizer/text_stream.h"
#include "common/text/tokenizer/token_table.h"
#include "common/text/tokenizer/tokenizer.h"
#include "common/text/tokenizer/unigram.h"
#include "common/text/tokenizer/word_encoder.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;
using Ids = std::vector<int32_t>;

const Json& Golden() {
  static const Json golden =
      ReadStrictJson(PLUMB_SOURCE_DIR "/tests/golden/tokenizer_kinds.json", 4 << 20);
  return golden;
}

class TokenizerKinds : public ::testing::TestWithParam<std::string> {
 protected:
  const Json& golden_ = Golden().at(GetParam());
  const std::unique_ptr<Tokenizer> tokenizer_ =
      Tokenizer::Parse(golden_["tokenizer"].get<std::string>(), GetParam());
};

TEST_P(TokenizerKinds, HasTheReferencesIds) {
  ASSERT_GE(golden_["texts"].size(), 60u);
  int wrong = 0;
  for (size_t i = 0; i < golden_["texts"].size(); ++i) {
    const auto ids = tokenizer_->Encode(golden_["texts"][i].get<std::string>());
    const auto expected = golden_["ids"][i].get<Ids>();
    if (ids != expected && ++wrong <= 5)
      ADD_FAILURE() << golden_["texts"][i] << "\n" << Json(ids) << "\n" << Json(expected);
    if (i >= golden_["whole"].size()) continue;
    Ids whole = tokenizer_->surroundings().front;
    whole.insert(whole.end(), ids.begin(), ids.end());
    whole.insert(whole.end(), tokenizer_->surroundings().back.begin(),
                 tokenizer_->surroundings().back.end());
    EXPECT_EQ(whole, golden_["whole"][i].get<Ids>());
  }
  EXPECT_EQ(wrong, 0);
}

TEST_P(TokenizerKinds, DecodesAsTheReference) {
  ASSERT_GE(golden_["decoded"].size(), 30u);
  for (const Json& row : golden_["decoded"]) {
    const auto ids = row[0].get<Ids>();
    EXPECT_EQ(tokenizer_->Decode(ids), row[1].get<std::string>()) << row[0];
    EXPECT_EQ(tokenizer_->Decode(ids, true), row[2].get<std::string>()) << row[0];
  }
}

// Whatever tokens come, what is given out is whole characters, and all of it what Decode says.
TEST_P(TokenizerKinds, TokenByTokenIsTheWhole) {
  RandomStream random(7, 1);
  const auto draw = [&](int32_t below) {
    return static_cast<int32_t>(random.NextBelow(static_cast<uint32_t>(below)));
  };
  for (int i = 0; i < 300; ++i) {
    Ids ids;
    for (int n = draw(17); n >= 0; --n) ids.push_back(draw(tokenizer_->size() + 2));
    for (const bool skip : {false, true}) {
      TextStream stream(*tokenizer_, skip);
      std::string all;
      for (const int32_t id : ids) {
        const std::string piece = stream.Add(id);
        ASSERT_TRUE(IsUtf8(piece)) << Json(ids);
        all += piece;
      }
      const std::string last = stream.End();
      ASSERT_TRUE(IsUtf8(last)) << Json(ids);
      ASSERT_EQ(all + last, tokenizer_->Decode(ids, skip)) << Json(ids);
    }
  }
}

// Bytes that the reference cannot be given have ids, too, or are an error that names them.
TEST_P(TokenizerKinds, TakesBytesThatAreNoCharacters) {
  for (const std::string text : {"\xff\xfe", "a\xc3", "\xed\xa0\x80 x", "\x80 the\xe2\x82"}) {
    for (const bool special : {true, false}) {
      try {
        for (const int32_t id : tokenizer_->Encode(text, special)) EXPECT_TRUE(tokenizer_->Has(id));
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
        EXPECT_NE(e.message().find("is not in the vocabulary"), std::string::npos) << e.what();
      }
    }
  }
}

std::vector<std::string> Names() {
  std::vector<std::string> out;
  for (const auto& [name, unused] : Golden().items()) out.push_back(name);
  return out;
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerKinds, ::testing::ValuesIn(Names()),
                         [](const auto& test) { return test.param; });

std::unique_ptr<Tokenizer> OfKind(const char* name) {
  return Tokenizer::Parse(Golden().at(name)["tokenizer"].get<std::string>(), name);
}

TEST(TokenizerKinds, LongTextsTakeNoQuadraticTime) {
  for (const auto& [name, golden] : Golden().items()) {
    const auto tokenizer = OfKind(name.c_str());
    for (const char* unit : {"a", " ", "the ", "A", "\n", " \n", "!", "1", "' ", "\u0301", "\u6771",
                             "\U0001F600", "\u2581", "x<w", "A\u0301", "-a"}) {
      std::string text;
      while (text.size() < 100000) text += unit;
      const auto begin = std::chrono::steady_clock::now();
      try {
        tokenizer->Encode(text);
      } catch (const Error&) {  // a character without a token
      }
      EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5))
          << name << ": " << unit;
    }
  }
}

TEST(TokenizerKinds, ThreadsShareATokenizer) {
  const auto tokenizer = OfKind("llama3");
  const Json& golden = Golden().at("llama3");
  std::vector<std::thread> threads;
  std::array<bool, 4> right{};
  for (size_t t = 0; t < right.size(); ++t) {
    threads.emplace_back([&, t] {
      bool all = true;
      for (int round = 0; round < 5; ++round) {
        for (size_t i = 0; i < golden["texts"].size(); ++i)
          all &= tokenizer->Encode(golden["texts"][i].get<std::string>()) ==
                 golden["ids"][i].get<Ids>();
      }
      right[t] = all;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const bool all : right) EXPECT_TRUE(all);
}

// A text that is one long word is cut at the marks of spaces; where a merge reaches over one it is
// not.
TEST(TokenizerKinds, AMergeOverAMarkIsKept) {
  const auto source = [](const char* merges) {
    return std::string(R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"▁":2,"▁b":3,"a▁":4},)") +
           R"("merges":)" + merges + R"(},"decoder":{"type":"Fuse"}})";
  };
  EXPECT_EQ(Tokenizer::Parse(source(R"(["▁ b"])"), "cut")->Encode("a▁b▁▁b"), (Ids{0, 3, 2, 3}));
  EXPECT_EQ(Tokenizer::Parse(source(R"(["a ▁","▁ b"])"), "over")->Encode("a▁b▁▁b"),
            (Ids{4, 1, 2, 3}));
}

TEST(TokenizerKinds, ByteRowsAreJudgedAsAWhole) {
  const auto tokenizer = OfKind("gemma");
  const auto ids = [&](std::initializer_list<const char*> tokens) {
    Ids out;
    for (const char* token : tokens) out.push_back(tokenizer->Find(token));
    return out;
  };
  const Ids euro = ids({"<0xE2>", "<0x82>", "<0xAC>"});
  EXPECT_EQ(tokenizer->Decode(euro), "\u20AC");
  const Ids broken = ids({"<0xE2>", "<0x82>", "<0xAC>", "<0xFF>"});
  EXPECT_EQ(tokenizer->Decode(broken), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(tokenizer->TokenBytes(euro[0]), "\xE2");
  EXPECT_EQ(tokenizer->TokenBytes(tokenizer->Find("\u2581")), " ");
}

TEST(TokenizerKinds, WhatIsNotKnownIsNamed) {
  const auto refuses = [&](const char* name, const char* pointer, const Json& value,
                           const char* what) {
    Json j = Json::parse(Golden().at(name)["tokenizer"].get<std::string>());
    j[Json::json_pointer(pointer)] = value;
    try {
      Tokenizer::Parse(j.dump(), "some/tokenizer.json");
      ADD_FAILURE() << "accepted " << pointer << " = " << value;
    } catch (const Error& e) {
      for (const char* part : {what, "some/tokenizer.json"})
        EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  };
  refuses("llama3", "/pre_tokenizer/pretokenizers/0/pattern/Regex", R"(\p{Han}+|x)",
          R"(pre_tokenizer: the pattern \p{Han}+|x)");
  refuses("llama3", "/pre_tokenizer/pretokenizers/0/behavior", "Shuffled", "Shuffled");
  refuses("llama2", "/normalizer/normalizers/1/pattern", Json{{"Regex", "x*y"}},
          "normalizer: the pattern x*y");
  refuses("llama2", "/normalizer/normalizers/1/type", "Nmt", "normalizer: 'Nmt'");
  Json doubling = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  Json decoding = {{"type", "Sequence"}, {"decoders", Json::array()}};
  for (int i = 0; i < 40; ++i) {
    const Json step = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
    doubling["normalizers"].push_back(step);
    decoding["decoders"].push_back(step);
  }
  refuses("llama2", "/normalizer", doubling, "a chain of Replace");
  refuses("llama2", "/decoder", decoding, "a chain of Replace");
  refuses("llama2", "/decoder/decoders/1/type", "WordPiece", "decoder: 'WordPiece'");
  refuses("llama2", "/decoder/decoders/3/start", -1, "start of Strip");
  refuses("llama2", "/model/type", "WordPiece", "WordPiece");
  refuses("llama2", "/model/end_of_word_suffix", "</w>", "model.end_of_word_suffix");
  refuses("llama2", "/model/dropout", 0.1, "model.dropout");
  refuses("llama2", "/post_processor/special_tokens", Json::object(), "'<s>'");
  refuses("llama2", "/post_processor/special_tokens/<s>/ids", Json{1 << 20}, "1048576");
  refuses("llama2", "/post_processor/type", "Magic", "post_processor: 'Magic'");
  refuses("mistral", "/pre_tokenizer/replacement", "ab", "Metaspace");
  refuses("mistral", "/pre_tokenizer/type", "UnicodeScripts", "UnicodeScripts");
  refuses("joined_decoder", "/decoder/decoders/2/type", "ByteLevel", "behind a step that joins");
  refuses("unigram", "/model/unk_id", 100000, "model.unk_id");
  refuses("unigram", "/model/vocab/3", Json{"x", "y"}, "model.vocab");
  refuses("unigram", "/model/vocab/3", Golden().at("unigram").at("texts"), "model.vocab");
  refuses("precompiled", "/normalizer/normalizers/0/precompiled_charsmap", "????", "base64");
  refuses("precompiled", "/normalizer/normalizers/0/precompiled_charsmap", "AAAAgAAA", "cut short");
}

}  // namespace
}  // namespace plumb
