// The built-in vocabulary: its ids are stored in checkpoints, so their order is a contract.
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/text/tokenizer/tokenizer.h"

namespace plumb {
namespace {

TEST(BuiltInTokenizer, IdsAreFixed) {
  const auto t = Tokenizer::BuiltIn("arithmetic");
  ASSERT_EQ(t->size(), 26);
  const char* const expected[] = {
      "<pad>", "<bos>", "<eos>", "<think>", "</think>", "<answer>", "</answer>", "0", "1",
      "2",     "3",     "4",     "5",       "6",        "7",        "8",         "9", "+",
      "-",     "*",     "/",     "=",       ",",        ".",        " ",         "\n"};
  for (int32_t id = 0; id < 26; ++id) {
    EXPECT_EQ(t->TokenBytes(id), expected[id]);
    EXPECT_EQ(t->Find(expected[id]), id);
    EXPECT_EQ(t->IsSpecial(id), id < 3);
  }
  EXPECT_EQ(t->Find("<nobody>"), -1);
}

TEST(BuiltInTokenizer, TakesTheLongestTokenAndDecodesToTheSameText) {
  const auto t = Tokenizer::BuiltIn("arithmetic");
  const std::string text = "<bos>12+34=<think>1/2\n</think><answer>46</answer><eos>";
  const auto ids = t->Encode(text);
  EXPECT_EQ(ids,
            (std::vector<int32_t>{1, 8, 9, 17, 10, 11, 21, 3, 8, 20, 9, 25, 4, 5, 11, 13, 6, 2}));
  EXPECT_EQ(t->Decode(ids), text);
  EXPECT_EQ(t->Decode(ids, true), "12+34=<think>1/2\n</think><answer>46</answer>");
}

TEST(BuiltInTokenizer, NamesACharacterItDoesNotKnow) {
  const auto t = Tokenizer::BuiltIn("arithmetic");
  for (const bool loaded : {false, true}) {
    const auto u =
        loaded ? Tokenizer::Parse(t->json(), "round trip") : Tokenizer::BuiltIn("arithmetic");
    try {
      u->Encode("1+x");
      FAIL() << "x is not in the vocabulary";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(e.message().find("'x'"), std::string::npos) << e.message();
    }
    // Without special tokens "<bos>" is text, and '<' alone is not in the vocabulary.
    EXPECT_THROW(u->Encode("<bos>1", /*allow_special=*/false), Error);
  }
  EXPECT_THROW(Tokenizer::BuiltIn("poetry"), Error);
}

TEST(BuiltInTokenizer, ItsJsonReadsBackToTheSameBehaviour) {
  const auto t = Tokenizer::BuiltIn("arithmetic");
  const auto u = Tokenizer::Parse(t->json(), "round trip");
  EXPECT_EQ(u->json(), t->json());
  ASSERT_EQ(u->size(), t->size());
  const std::string text = "<bos>7*8=<think>7*8=56</think><answer>56</answer>, . -\n<eos>";
  EXPECT_EQ(u->Encode(text), t->Encode(text));
  EXPECT_EQ(u->Decode(u->Encode(text), true), t->Decode(t->Encode(text), true));
  for (int32_t id = 0; id < t->size(); ++id) {
    EXPECT_EQ(u->TokenBytes(id), t->TokenBytes(id));
    EXPECT_EQ(u->IsSpecial(id), t->IsSpecial(id));
  }
}

TEST(BytesTokenizer, IdsAreTheBytesAndTheMarksBehindThem) {
  const auto t = Tokenizer::BuiltIn("bytes");
  ASSERT_EQ(t->size(), 266);
  for (int32_t id = 0; id < 256; ++id)
    EXPECT_EQ(t->TokenBytes(id), std::string(1, static_cast<char>(id))) << id;
  const char* const marks[] = {"<pad>",       "<bos>",   "<eos>",    "<system>", "<user>",
                               "<assistant>", "<think>", "</think>", "<answer>", "</answer>"};
  for (int32_t i = 0; i < 10; ++i) {
    EXPECT_EQ(t->Find(marks[i]), 256 + i);
    EXPECT_EQ(t->IsSpecial(256 + i), i < 6) << marks[i];
  }
}

TEST(BytesTokenizer, WritesAnyTextAndReadsItBack) {
  const auto t = Tokenizer::BuiltIn("bytes");
  const std::string text =
      "<bos>def f(x):\n  return {'\u00e9': [x, \"  \"]}\t\u20ac<answer>1</answer><eos>";
  const auto ids = t->Encode(text);
  EXPECT_EQ(ids.front(), 257);
  EXPECT_EQ(ids.back(), 258);
  EXPECT_EQ(ids[1], 'd');
  EXPECT_EQ(t->Decode(ids), text);
  EXPECT_EQ(t->surroundings().front, std::vector<int32_t>{257});
  // A mark is a text like any other where it is not allowed.
  EXPECT_EQ(t->Encode("<eos>", /*allow_special=*/false).size(), 5u);
  const auto read = Tokenizer::Parse(t->json(), "round trip");
  EXPECT_EQ(read->Encode(text), ids);
}

}  // namespace
}  // namespace plumb
