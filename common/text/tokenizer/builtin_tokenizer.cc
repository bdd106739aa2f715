// The vocabularies that need no file: single characters and whole tags.
#include <array>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/text/tokenizer/tokenizer.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;

Json AddedToken(int32_t id, std::string_view text, bool special) {
  return {
      {"id", id},        {"content", std::string(text)}, {"single_word", false}, {"lstrip", false},
      {"rstrip", false}, {"normalized", false},          {"special", special}};
}

// A tokenizer.json without merges. Others' readers put <bos> in front of a text by its
// post-processor, as Plumb does in front of a prompt.
std::string FileOf(const Json& added, const Json& vocab, int32_t bos_id, const Json& pre_tokenizer,
                   const Json& decoder) {
  const auto piece = [](const char* kind, const char* id) {
    return Json{{kind, {{"id", id}, {"type_id", 0}}}};
  };
  const Json bos = piece("SpecialToken", "<bos>"), a = piece("Sequence", "A"),
             b = piece("Sequence", "B");
  const Json begins = {
      {"type", "TemplateProcessing"},
      {"single", Json::array({bos, a})},
      {"pair", Json::array({bos, a, b})},
      {"special_tokens", {{"<bos>", {{"id", "<bos>"}, {"ids", {bos_id}}, {"tokens", {"<bos>"}}}}}}};
  const Json model = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", nullptr},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"vocab", vocab},
                      {"merges", Json::array()}};
  const Json file = {
      {"version", "1.0"},         {"truncation", nullptr}, {"padding", nullptr},
      {"added_tokens", added},    {"normalizer", nullptr}, {"pre_tokenizer", pre_tokenizer},
      {"post_processor", begins}, {"decoder", decoder},    {"model", model}};
  return file.dump(1);
}

// Ids are positions; append-only: checkpoints depend on them.
constexpr std::array<std::string_view, 26> kArithmetic = {
    "<pad>", "<bos>", "<eos>", "<think>", "</think>", "<answer>", "</answer>", "0", "1",
    "2",     "3",     "4",     "5",       "6",        "7",        "8",         "9", "+",
    "-",     "*",     "/",     "=",       ",",        ".",        " ",         "\n"};
constexpr int32_t kSpecials = 3;  // pad, bos, eos; the tags are part of the text
constexpr int32_t kTags = 7;      // specials and tags: added tokens in tokenizer.json

class CharacterTokenizer : public Tokenizer {
 public:
  CharacterTokenizer() {
    Json added = Json::array(), vocab = Json::object();
    for (int32_t id = 0; id < size(); ++id) {
      const std::string_view token = kArithmetic[static_cast<size_t>(id)];
      vocab[std::string(token)] = id;
      if (id < kTags) added.push_back(AddedToken(id, token, id < kSpecials));
    }
    json_ = FileOf(added, vocab, /*bos=*/1, nullptr, {{"type", "Fuse"}});
  }

  std::vector<int32_t> Encode(std::string_view text, bool allow_special) const override {
    std::vector<int32_t> ids;
    while (!text.empty()) {
      int32_t best = -1;
      for (int32_t id = allow_special ? 0 : kTags; id < size(); ++id) {
        const std::string_view token = kArithmetic[static_cast<size_t>(id)];
        if (text.starts_with(token) &&
            (best < 0 || token.size() > kArithmetic[static_cast<size_t>(best)].size()))
          best = id;
      }
      if (best < 0) {
        throw Error(ErrorCode::kInvalidArgument,
                    "the character '" + std::string(text.substr(0, 1)) +
                        "' is not in the vocabulary \"arithmetic\" (0-9 + - * / = , . space)");
      }
      ids.push_back(best);
      text.remove_prefix(kArithmetic[static_cast<size_t>(best)].size());
    }
    return ids;
  }
  std::string_view TokenBytes(int32_t id) const override {
    PLUMB_CHECK(id >= 0, "token " + std::to_string(id));
    if (id >= size()) return {};
    return kArithmetic[static_cast<size_t>(id)];
  }
  int32_t size() const override { return static_cast<int32_t>(kArithmetic.size()); }
  int32_t Find(std::string_view token) const override {
    for (int32_t id = 0; id < size(); ++id) {
      if (kArithmetic[static_cast<size_t>(id)] == token) return id;
    }
    return -1;
  }
  bool IsSpecial(int32_t id) const override { return id < kSpecials; }
  const std::string& json() const override { return json_; }

 private:
  std::string json_;
};

// One token a byte, ids 0..255 as the bytes are, and behind them what a dialogue and an answer are
// marked with. Written as the tokenizer.json of a byte-level vocabulary without merges, so that
// others read it and nothing but the list is ours. Append-only: checkpoints depend on the ids.
constexpr int32_t kBytes = 256;
constexpr std::array<std::string_view, 10> kByteMarks = {
    "<pad>",       "<bos>",   "<eos>",    "<system>", "<user>",
    "<assistant>", "<think>", "</think>", "<answer>", "</answer>"};
constexpr size_t kByteSpecials = 6;  // the tags are part of the text

// How byte-level vocabularies write a byte: those without a form of their own as the characters
// from U+0100 on.
std::string ShownByte(int byte, int* hidden) {
  const bool shown = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
  const int code = shown ? byte : kBytes + (*hidden)++;
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

std::unique_ptr<Tokenizer> MakeByteTokenizer() {
  Json vocab = Json::object(), added = Json::array();
  int hidden = 0;
  for (int byte = 0; byte < kBytes; ++byte) vocab[ShownByte(byte, &hidden)] = byte;
  for (size_t i = 0; i < kByteMarks.size(); ++i) {
    const int32_t id = kBytes + static_cast<int32_t>(i);
    vocab[std::string(kByteMarks[i])] = id;
    added.push_back(AddedToken(id, kByteMarks[i], i < kByteSpecials));
  }
  const Json bytes = {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", true},
                      {"use_regex", false}};
  return Tokenizer::Parse(FileOf(added, vocab, kBytes + 1, bytes, bytes),
                          "the vocabulary \"bytes\"");
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::BuiltIn(const std::string& name) {
  if (name == "arithmetic") return std::make_unique<CharacterTokenizer>();
  if (name == "bytes") return MakeByteTokenizer();
  throw Error(ErrorCode::kInvalidArgument,
              "there is no built-in vocabulary '" + name + "': use \"arithmetic\" or \"bytes\"");
}

}  // namespace plumb
