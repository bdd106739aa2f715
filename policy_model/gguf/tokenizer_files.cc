#include "policy_model/gguf/tokenizer_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "common/base/error.h"
#include "common/text/unicode.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::ordered_json;

// Kinds of tokens in the file.
enum TokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};
constexpr const char* kSpace = "\u2581";  // stands for a space in SentencePiece's tokens

struct Token {
  std::string_view text;
  int64_t type = kNormal;
};

std::vector<Token> TokensOf(const GgufReader& in, const ModelShape& shape) {
  const auto texts = in.Texts("tokenizer.ggml.tokens");
  const auto types = in.Integers("tokenizer.ggml.token_type");
  if (texts.size() != types.size() || static_cast<int64_t>(texts.size()) > shape.vocab) {
    throw Error(ErrorCode::kCorruption, "the tokenizer's lists and the embedding differ in length",
                in.path());
  }
  std::vector<Token> out(texts.size());
  for (size_t id = 0; id < texts.size(); ++id) {
    if (!IsUtf8(texts[id]))
      throw Error(ErrorCode::kCorruption, "token " + std::to_string(id) + " is not valid UTF-8",
                  in.path());
    if (types[id] < kNormal || types[id] > kByte)
      throw Error(
          ErrorCode::kCorruption,
          "token " + std::to_string(id) + " is of unknown type " + std::to_string(types[id]),
          in.path());
    out[id] = {texts[id], types[id]};
  }
  return out;
}

// Appends without looking the key up, which would be quadratic; twice the same is an error.
Json VocabularyJson(const std::vector<Token>& tokens) {
  Json out = Json::object();
  auto& entries = out.get_ref<Json::object_t&>();
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].type != kUnused)
      entries.Json::object_t::Container::emplace_back(std::string(tokens[id].text), Json(id));
  }
  return out;
}

Json AddedTokensJson(const std::vector<Token>& tokens) {
  Json out = Json::array();
  for (size_t id = 0; id < tokens.size(); ++id) {
    const int64_t type = tokens[id].type;
    if (type != kControl && type != kUserDefined && type != kUnknown) continue;
    out.push_back({{"id", id},
                   {"content", tokens[id].text},
                   {"single_word", false},
                   {"lstrip", false},
                   {"rstrip", false},
                   {"normalized", false},
                   {"special", type != kUserDefined}});
  }
  return out;
}

Json ByteLevelJson(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json SequenceJson(const char* key, std::vector<Json> steps) {
  return {{"type", "Sequence"}, {key, std::move(steps)}};
}

// Begin and end tokens around a text, where the file asks for them; null where it does not.
Json TemplateJson(const GgufReader& in, const ModelShape& shape, const std::vector<Token>& tokens,
                  bool begin, bool end) {
  const auto wants = [&](const char* key, bool otherwise) {
    return in.Integer(std::string("tokenizer.ggml.") + key, otherwise ? 1 : 0) != 0;
  };
  const auto known = [&](int64_t id) {
    return id >= 0 && id < static_cast<int64_t>(tokens.size());
  };
  const int64_t first = shape.bos_token, last = shape.eos_tokens.empty() ? -1 : shape.eos_tokens[0];
  begin = wants("add_bos_token", begin) && known(first);
  end = wants("add_eos_token", end) && known(last);
  if (!begin && !end) return nullptr;
  Json single = Json::array(), pair = Json::array(), special = Json::object();
  const auto add = [&](Json& list, int64_t id, int type) {
    const std::string text(tokens[static_cast<size_t>(id)].text);
    list.push_back({{"SpecialToken", {{"id", text}, {"type_id", type}}}});
    special[text] = {{"id", text}, {"ids", Json::array({id})}, {"tokens", Json::array({text})}};
  };
  for (const int type : {0, 1}) {
    const Json text = {{"Sequence", {{"id", type == 0 ? "A" : "B"}, {"type_id", type}}}};
    for (Json* list : {&single, &pair}) {
      if (list == &single && type == 1) continue;
      if (begin) add(*list, first, type);
      list->push_back(text);
      if (end) add(*list, last, type);
    }
  }
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(special)}};
}

// What a name of "tokenizer.ggml.pre" stands for.
struct PreTokenizer {
  const char* name;
  enum Kind { kGpt2, kDigits, kOne, kThree, kCased, kCasedOne } kind;
  bool composed = false;     // to normal form C before
  bool whole_first = false;  // a word that is a token stays whole, whatever the merges say
  bool begins = false;       // with the begin token, unless the file says no
};
constexpr PreTokenizer kPreTokenizers[] = {
    {"gpt-2", PreTokenizer::kGpt2},
    {"olmo", PreTokenizer::kGpt2},
    {"granite-docling", PreTokenizer::kGpt2},
    {"smollm", PreTokenizer::kDigits},
    {"starcoder", PreTokenizer::kDigits},
    {"refact", PreTokenizer::kDigits},
    {"codeshell", PreTokenizer::kDigits},
    {"qwen2", PreTokenizer::kOne, true},
    {"deepseek-r1-qwen", PreTokenizer::kOne, true},
    {"llama-bpe", PreTokenizer::kThree, false, true, true},
    {"llama3", PreTokenizer::kThree, false, true, true},
    {"llama-v3", PreTokenizer::kThree, false, true, true},
    {"dbrx", PreTokenizer::kThree},
    {"smaug-bpe", PreTokenizer::kThree},
    {"chatglm-bpe", PreTokenizer::kThree},
    {"glm4", PreTokenizer::kThree},
    {"gpt-4o", PreTokenizer::kCased},
    {"tekken", PreTokenizer::kCasedOne, false, true, true},
};

const PreTokenizer& PreTokenizerOf(const std::string& name, const std::string& where) {
  std::string known;
  for (const PreTokenizer& pre : kPreTokenizers) {
    if (name == pre.name) return pre;
    known += (known.empty() ? "" : ", ") + std::string(pre.name);
  }
  throw Error(ErrorCode::kUnsupported,
              "pre-tokenizer '" + name + "' is not known here; known: " + known, where);
}

Json PreTokenizerJson(PreTokenizer::Kind kind) {
  if (kind == PreTokenizer::kGpt2) return ByteLevelJson(true);
  if (kind == PreTokenizer::kDigits) {
    return SequenceJson("pretokenizers", {Json{{"type", "Digits"}, {"individual_digits", true}},
                                          ByteLevelJson(true)});
  }
  const std::string contractions = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))",
                    other = R"([^\r\n\p{L}\p{N}]?)", upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])",
                    lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])", spaces = R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const bool cased = kind == PreTokenizer::kCased || kind == PreTokenizer::kCasedOne;
  const std::string digits =
      kind == PreTokenizer::kThree || kind == PreTokenizer::kCased ? R"(\p{N}{1,3})" : R"(\p{N})";
  std::string words = contractions + "|" + other + R"(\p{L}+|)";
  if (cased) {
    const std::string behind = kind == PreTokenizer::kCased ? contractions + "?" : "";
    words = other + upper + "*" + lower + "+" + behind + "|" + other + upper + "+" + lower + "*" +
            behind + "|";
  }
  const std::string signs =
      cased ? R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*)" : R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)";
  return SequenceJson("pretokenizers",
                      {Json{{"type", "Split"},
                            {"pattern", {{"Regex", words + digits + signs + spaces}}},
                            {"behavior", "Isolated"},
                            {"invert", false}},
                       ByteLevelJson(false)});
}

Json ModelJson(const std::vector<Token>& tokens, Json merges, Json unknown, bool bytes,
               bool whole_first) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", std::move(unknown)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", bytes},
          {"byte_fallback", bytes},
          {"ignore_merges", whole_first},
          {"vocab", VocabularyJson(tokens)},
          {"merges", std::move(merges)}};
}

std::string WholeJson(const std::vector<Token>& tokens, Json normalizer, Json pre, Json post,
                      Json decoder, Json model) {
  const Json j = {{"version", "1.0"},
                  {"truncation", nullptr},
                  {"padding", nullptr},
                  {"added_tokens", AddedTokensJson(tokens)},
                  {"normalizer", std::move(normalizer)},
                  {"pre_tokenizer", std::move(pre)},
                  {"post_processor", std::move(post)},
                  {"decoder", std::move(decoder)},
                  {"model", std::move(model)}};
  return j.dump(1) + "\n";
}

std::string BytePairJson(const GgufReader& in, const ModelShape& shape) {
  const std::vector<Token> tokens = TokensOf(in, shape);
  const PreTokenizer& pre = PreTokenizerOf(in.Text("tokenizer.ggml.pre"), in.path());
  Json merges = Json::array();
  // A list without entries is no key of the file.
  const bool merged = in.Has("tokenizer.ggml.merges");
  for (const std::string_view merge :
       merged ? in.Texts("tokenizer.ggml.merges") : std::vector<std::string_view>()) {
    if (!IsUtf8(merge))
      throw Error(ErrorCode::kCorruption, "a merge is not valid UTF-8", in.path());
    merges.push_back(merge);
  }
  Json post = ByteLevelJson(true);
  if (Json around = TemplateJson(in, shape, tokens, pre.begins, false); !around.is_null())
    post = SequenceJson("processors", {std::move(post), std::move(around)});
  return WholeJson(tokens, pre.composed ? Json{{"type", "NFC"}} : Json(nullptr),
                   PreTokenizerJson(pre.kind), std::move(post), ByteLevelJson(true),
                   ModelJson(tokens, std::move(merges), nullptr, false, pre.whole_first));
}

struct Merge {
  double score;
  int64_t left_length, right_length;  // in characters
  int32_t left, right;                // ids
};

// Every way in which two tokens make a third, best score first. Where scores are equal, as the
// reference: the longer left part, then the longer right one, then the order of the tokens.
std::vector<Merge> MergesOf(const std::vector<Token>& tokens, const std::vector<double>& scores) {
  std::unordered_map<std::string_view, int32_t> ids;
  ids.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].type == kNormal) ids.emplace(tokens[id].text, static_cast<int32_t>(id));
  }
  std::vector<Merge> out;
  std::vector<size_t> ends;  // of the token's characters
  for (size_t id = 0; id < tokens.size(); ++id) {
    const auto& [text, type] = tokens[id];
    // Tokens are some dozens of bytes; past this the ways would grow with the square.
    if (type != kNormal || text.size() > 1024) continue;
    ends.clear();
    for (size_t at = 0; at < text.size();) ends.push_back(at += DecodeUtf8(text, at).bytes);
    const size_t first = out.size();
    for (size_t cut = 0; cut + 1 < ends.size(); ++cut) {
      const auto left = ids.find(text.substr(0, ends[cut]));
      if (left == ids.end()) continue;
      const auto right = ids.find(text.substr(ends[cut]));
      if (right == ids.end()) continue;
      out.push_back({scores[id], static_cast<int64_t>(cut + 1),
                     static_cast<int64_t>(ends.size() - cut - 1), left->second, right->second});
    }
    std::sort(out.begin() + static_cast<ptrdiff_t>(first), out.end(),
              [](const Merge& a, const Merge& b) {
                return a.left != b.left ? a.left < b.left : a.right < b.right;
              });
  }
  std::stable_sort(out.begin(), out.end(), [](const Merge& a, const Merge& b) {
    if (a.score != b.score) return a.score > b.score;
    if (a.left_length != b.left_length) return a.left_length > b.left_length;
    return a.right_length > b.right_length;
  });
  return out;
}

std::string SentencePieceJson(const GgufReader& in, const ModelShape& shape) {
  const std::vector<Token> tokens = TokensOf(in, shape);
  const std::vector<double> scores = in.Numbers("tokenizer.ggml.scores");
  if (scores.size() != tokens.size())
    throw Error(ErrorCode::kCorruption, "tokenizer.ggml.scores is not a number for each token",
                in.path());
  if (std::any_of(scores.begin(), scores.end(), [](double s) { return s != s; }))
    throw Error(ErrorCode::kCorruption, "tokenizer.ggml.scores holds no number", in.path());
  Json merges = Json::array();
  for (const Merge& m : MergesOf(tokens, scores)) {
    merges.push_back(Json::array(
        {tokens[static_cast<size_t>(m.left)].text, tokens[static_cast<size_t>(m.right)].text}));
  }
  const auto bytes =
      std::count_if(tokens.begin(), tokens.end(), [](const Token& t) { return t.type == kByte; });
  int64_t unknown = in.Integer("tokenizer.ggml.unknown_token_id", -1);
  for (size_t id = 0; id < tokens.size() && unknown < 0; ++id) {
    if (tokens[id].type == kUnknown) unknown = static_cast<int64_t>(id);
  }
  if (unknown >= static_cast<int64_t>(tokens.size()))
    throw Error(ErrorCode::kCorruption, "'unknown_token_id' is outside the vocabulary", in.path());
  const bool prefix = in.Integer("tokenizer.ggml.add_space_prefix", 1) != 0;
  const Json to_space = {{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}};
  Json normalizer = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}};
  std::vector<Json> decoders = {to_space, Json{{"type", "ByteFallback"}}, Json{{"type", "Fuse"}}};
  if (prefix) {
    normalizer = SequenceJson(
        "normalizers", {Json{{"type", "Prepend"}, {"prepend", kSpace}}, std::move(normalizer)});
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  return WholeJson(
      tokens, std::move(normalizer), nullptr, TemplateJson(in, shape, tokens, true, false),
      SequenceJson("decoders", std::move(decoders)),
      ModelJson(tokens, std::move(merges),
                unknown < 0 ? Json(nullptr) : Json(tokens[static_cast<size_t>(unknown)].text),
                bytes == 256, false));
}

}  // namespace

std::string TokenizerJson(const GgufReader& in, const ModelShape& shape) {
  const std::string model = in.Text("tokenizer.ggml.model");
  if (model == "gpt2") return BytePairJson(in, shape);
  if (model == "llama") return SentencePieceJson(in, shape);
  throw Error(ErrorCode::kUnsupported,
              "tokenizer '" + model +
                  "' is not known here; gpt2 (byte-level BPE) and llama (SentencePiece BPE) are",
              in.path());
}

std::string TokenizerConfigJson(const GgufReader& in, const ModelShape& shape) {
  const auto tokens = in.Texts("tokenizer.ggml.tokens");
  const auto text = [&](int64_t id) {
    return id >= 0 && id < static_cast<int64_t>(tokens.size())
               ? Json(tokens[static_cast<size_t>(id)])
               : Json(nullptr);
  };
  const Json j = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                  {"clean_up_tokenization_spaces", false},
                  {"model_max_length", shape.max_positions},
                  {"bos_token", text(shape.bos_token)},
                  {"eos_token", text(shape.eos_tokens.empty() ? -1 : shape.eos_tokens[0])},
                  {"pad_token", text(shape.pad_token)},
                  {"unk_token", text(in.Integer("tokenizer.ggml.unknown_token_id", -1))}};
  return j.dump(2) + "\n";
}

}  // namespace plumb::policy_model
