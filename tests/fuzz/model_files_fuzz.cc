// What a model folder or a checkpoint holds: weights, GGUF, tokenizer, configuration, chat
// template, manifest.
#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"
#include "common/base/json/strict_json.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/text_stream.h"
#include "common/text/tokenizer/tokenizer.h"
#include "learner/update/checkpoint_manifest.h"
#include "policy_model/families/model_config.h"
#include "policy_model/files/gguf_reader.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/gguf/convert.h"
#include "targets.h"
#include "tests/testing/gguf_maker.h"

namespace plumb::fuzz {
namespace {

using namespace policy_model;
using plumb::testing::GgufMaker;
using plumb::testing::TinyGguf;
using plumb::testing::TinySentencePieceGguf;
using Json = nlohmann::ordered_json;

// First and last byte of every tensor: a view outside the file shows.
void Touch(const SafetensorsReader& reader) {
  for (const auto& [name, view] : reader.tensors()) {
    if (!view.bytes.empty())
      Use(static_cast<size_t>(view.bytes.front()) + static_cast<size_t>(view.bytes.back()));
  }
}

std::string WithHeader(const std::string& header, size_t data) {
  const uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header +
         std::string(data, 'd');
}

}  // namespace

void FuzzSafetensors(std::string_view input) {
  Touch(*SafetensorsReader::OpenFile(InputFile(input)));
}

Seeds SafetensorsSeeds() {
  return {
      WithHeader(
          R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]}})",
          26),
      WithHeader(
          R"({"__metadata__":{"format":"pt"},"a":{"dtype":"I64","shape":[0],"data_offsets":[0,0]}})",
          0),
      WithHeader("{}", 0), SourceFile("tests/golden/tiny_llama/model.safetensors").substr(0, 4096)};
}

void FuzzSafetensorsIndex(std::string_view input) {
  static const bool made = [] {
    WriteInput(InputFolder() + "/one.safetensors",
               WithHeader(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4));
    WriteInput(InputFolder() + "/two.safetensors",
               WithHeader(R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4));
    return true;
  }();
  Use(made);
  WriteInput(InputFolder() + "/model.safetensors.index.json", input);
  Touch(*SafetensorsReader::OpenDirectory(InputFolder()));
}

Seeds SafetensorsIndexSeeds() {
  return {
      R"({"metadata":{"total_size":8},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})",
      R"({"weight_map":{"a":"../one.safetensors"}})",
      R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})"};
}

void FuzzGguf(std::string_view input) {
  const std::string path = InputFile(input);
  const auto reader = GgufReader::Open(path);
  for (const auto& [name, tensor] : reader->tensors()) {
    const GgufBlock block = BlockOf(tensor.type, name);
    std::vector<float> out(
        static_cast<size_t>(block.elements) *
        std::min<size_t>(tensor.bytes.size() / static_cast<size_t>(block.bytes), 4));
    Dequantize(tensor.type,
               tensor.bytes.first(out.size() / static_cast<size_t>(block.elements) *
                                  static_cast<size_t>(block.bytes)),
               out);
  }
  ConvertGguf(path, InputFolder() + "/out", DType::kFloat32, /*overwrite=*/true);
}

Seeds GgufSeeds() {
  GgufMaker small;
  small.Word("general.architecture", "llama");
  small.Words("tokenizer.ggml.tokens", {"a", "b"});
  small.Tensor("x", {32}, 8, std::string(34, 'q'));
  // A tensor of every quantised type, and a tokenizer by scores.
  GgufMaker types, pieces = TinySentencePieceGguf();
  for (const auto& [type, elements, bytes] : std::to_array<std::array<uint32_t, 3>>({{1, 1, 2},
                                                                                     {2, 32, 18},
                                                                                     {3, 32, 20},
                                                                                     {6, 32, 22},
                                                                                     {7, 32, 24},
                                                                                     {8, 32, 34},
                                                                                     {10, 256, 84},
                                                                                     {11, 256, 110},
                                                                                     {12, 256, 144},
                                                                                     {13, 256, 176},
                                                                                     {14, 256, 210},
                                                                                     {20, 32, 18},
                                                                                     {30, 1, 2}})) {
    types.Tensor("t" + std::to_string(type), {elements, 2}, type, std::string(2 * bytes, 'q'));
  }
  return {TinyGguf("llama").File(), TinyGguf("qwen2").File(), small.File(), types.File(),
          pieces.File()};
}

namespace {

// Token by token a text comes in whole characters, and is the same as at once.
void CheckStream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  TextStream stream(tokenizer, /*skip_special=*/false);
  std::string all;
  for (const int32_t id : ids) {
    const std::string piece = stream.Add(id);
    PLUMB_CHECK(IsUtf8(piece), "half a character");
    all += piece;
  }
  PLUMB_CHECK(all + stream.End() == tokenizer.Decode(ids), "another text token by token");
}

}  // namespace

void FuzzTokenizer(std::string_view input) {
  const auto tokenizer = Tokenizer::Parse(input, "input");
  for (const std::string_view text :
       {std::string_view("Hello, w\xc3\xb6rld 123\n\n  <|x|>'s"),
        std::string_view("cat <lr>  <wlr>\xe3\x80\x80<l>cats \xff<w>"),
        std::string_view("\xff\xfe\x80 \xed\xa0\x80")}) {
    for (const bool special : {true, false}) {
      try {
        const auto ids = tokenizer->Encode(text, special);
        for (const int32_t id : ids)
          PLUMB_CHECK(id >= 0 && id < tokenizer->size(), std::to_string(id));
        CheckStream(*tokenizer, ids);
      } catch (const Error&) {  // a character without a token
      }
    }
  }
  std::vector<int32_t> all;
  for (int32_t id = 0; id < std::min(tokenizer->size(), 500); ++id) all.push_back(id);
  CheckStream(*tokenizer, all);
}

// A text under a tokenizer of each kind; what follows the first zero byte is a row of ids.
void FuzzTokenizerText(std::string_view input) {
  static const auto kTokenizers = [] {
    std::vector<std::unique_ptr<Tokenizer>> out;
    const Json kinds = Json::parse(SourceFile("tests/golden/tokenizer_kinds.json"));
    for (const auto& [name, kind] : kinds.items())
      out.push_back(Tokenizer::Parse(kind.at("tokenizer").get<std::string>(), name));
    return out;
  }();
  const auto [text, row] = Halves(input);
  for (const auto& tokenizer : kTokenizers) {
    std::vector<int32_t> ids;
    for (const char c : row) ids.push_back(static_cast<unsigned char>(c));
    CheckStream(*tokenizer, ids);
    try {
      ids = tokenizer->Encode(text);
      for (const int32_t id : ids)
        PLUMB_CHECK(id >= 0 && id < tokenizer->size(), std::to_string(id));
      CheckStream(*tokenizer, ids);
      PLUMB_CHECK(tokenizer->Encode(text) == ids, "other ids from the cache");
    } catch (const Error&) {  // a character without a token
    }
  }
}

Seeds TokenizerTextSeeds() {
  Seeds out;
  const Json kinds = Json::parse(SourceFile("tests/golden/tokenizer_kinds.json"));
  for (const auto& [name, kind] : kinds.items()) {
    for (size_t i = 27; i < 31; ++i) out.push_back(kind.at("texts")[i].get<std::string>());
  }
  return out;
}

Seeds TokenizerSeeds() {
  Seeds out;
  const Json golden = Json::parse(SourceFile("tests/golden/tokenizer.json"));
  for (const auto& [name, text] : golden.at("tokenizers").items()) {
    // Whole, and with the vocabulary cut so that mutations meet more than its entries.
    Json j = Json::parse(text.get<std::string>());
    out.push_back(j.dump());
    Json few = Json::object();
    for (const auto& [token, id] : j["model"]["vocab"].items()) {
      if (few.size() < 40) few[token] = id;
    }
    j["model"]["vocab"] = few;
    j["model"]["merges"] = Json::array();
    out.push_back(j.dump());
  }
  const Json added = Json::parse(SourceFile("tests/golden/added_tokens.json"));
  for (const char* name : {"strips", "normalized", "unknown_fused"})
    out.push_back(added.at(name).at("tokenizer").get<std::string>());
  const Json kinds = Json::parse(SourceFile("tests/golden/tokenizer_kinds.json"));
  for (const char* name : {"llama2", "mistral", "unigram", "precompiled", "folded", "classes",
                           "merged_with_next", "joined_decoder", "roberta"})
    out.push_back(kinds.at(name).at("tokenizer").get<std::string>());
  return out;
}

void FuzzModelConfig(std::string_view input) {
  const auto [config, generation] = Halves(input);
  WriteInput(InputFolder() + "/config.json", config);
  WriteInput(InputFolder() + "/generation_config.json", generation.empty() ? "{}" : generation);
  const ModelShape shape = ReadModelConfig(InputFolder());
  Validate(shape, "read");  // what was read holds
  PLUMB_CHECK(shape.heads % shape.kv_heads == 0 && shape.qkv_width() > 0,
              "sizes of a shape that was read");
  WriteModelConfig(shape, InputFolder(), "float32");
  PLUMB_CHECK(ReadModelConfig(InputFolder()) == shape, "a shape changed on its way");
}

Seeds ModelConfigSeeds() {
  return {
      Joined(SourceFile("tests/golden/tiny_llama/config.json"),
             SourceFile("tests/golden/tiny_llama/generation_config.json")),
      R"({"model_type":"qwen2","num_hidden_layers":2,"hidden_size":16,"num_attention_heads":4,"num_key_value_heads":2,)"
      R"("intermediate_size":32,"vocab_size":100,"max_position_embeddings":64,"rms_norm_eps":1e-6,"tie_word_embeddings":false,)"
      R"("eos_token_id":[1,2],"rope_parameters":{"rope_type":"default","rope_theta":10000.0}})"};
}

void FuzzChatTemplate(std::string_view input) {
  const auto parsed = ChatTemplate::Parse(std::string(input), "<s>", "</s>");
  const std::vector<Message> messages = {
      {"system", "Be brief."},
      {"user", "h\xc3\xa9llo"},
      {"assistant", "",
       R"({"content":null,"tool_calls":[{"function":{"name":"f","arguments":{"a":[1,2.5,null]}}}]})"},
      {"user", "\xff 1", R"({"name":"ann"})"}};
  Use(parsed->Render(messages, true, R"({"tools":[{"type":"function","function":{"name":"f"}}]})")
          .size());
}

Seeds ChatTemplateSeeds() {
  Seeds out;
  for (const Json& row : Json::parse(SourceFile("tests/golden/chat_template.json")))
    out.push_back(row.at("template"));
  const Json jinja = Json::parse(SourceFile("tests/golden/jinja.json"));
  for (const auto& [key, rows] : jinja.items()) {
    for (const Json& row : rows) {
      if (row.is_object() && row.contains("template")) out.push_back(row["template"]);
    }
  }
  return out;
}

// 'm': a manifest. 'b': a body, around which a manifest with the right hash is put: else the hash
// hides it from mutation.
void FuzzManifest(std::string_view input) {
  using namespace learner;
  if (input.empty()) return;
  std::string text(input.substr(1));
  if (input[0] == 'b') {
    text = ParseStrictJson(text, "body").dump();
    Sha256 hash;
    hash.Update(std::as_bytes(std::span(text.data(), text.size())));
    text = R"({"format":1,"body":)" + text + R"(,"body_sha256":")" + hash.HexDigest() + "\"}";
  }
  const std::string written = WriteManifest(ReadManifest(text, "manifest.json"));
  PLUMB_CHECK(WriteManifest(ReadManifest(written, "again")) == written,
              "a manifest changed on its way");
}

Seeds ManifestSeeds() {
  learner::CheckpointManifest m;
  m.files = {{"model/config.json", "aa"}, {"optimizer.safetensors", "bb"}};
  m.state.emplace();
  m.state->policy = {5, "digest"};
  m.state->models["critic"] = {};
  m.state->state_json = R"({"eval":[0.5,{"x":null}]})";
  const std::string text = learner::WriteManifest(m);
  const std::string body = Json::parse(text).at("body").dump();
  Seeds out = {"m" + text, "b" + body};
  for (const auto& [from, to] : {std::pair("\"step\":0", "\"step\":1e300"),
                                 std::pair("\"step\":0", "\"step\":18446744073709551615"),
                                 std::pair("\"seed\":0", "\"seed\":-1"),
                                 std::pair("\"models\":{", "\"models\":{\"x\":1,")}) {
    std::string changed = body;
    changed.replace(changed.find(from), std::strlen(from), to);
    out.push_back("b" + changed);
  }
  return out;
}

}  // namespace plumb::fuzz
