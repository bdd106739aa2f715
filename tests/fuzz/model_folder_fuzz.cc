// The smaller files of a model folder, and a file of a split GGUF model beside another.
#include "common/base/error.h"
#include "common/text/template/special_tokens.h"
#include "policy_model/families/adapter_table.h"
#include "policy_model/files/gguf_reader.h"
#include "targets.h"
#include "tests/testing/gguf_maker.h"

namespace plumb::fuzz {
namespace {

using plumb::testing::Floats;
using plumb::testing::GgufMaker;

std::string Part(uint32_t no, const std::string& tensor) {
  GgufMaker m;
  m.Integer("split.no", no);
  m.Integer("split.count", 2);
  m.Integer("split.tensors.count", 2);
  m.Tensor(tensor, {2}, 0, Floats(2, 1));
  return m.File();
}

}  // namespace

void FuzzGgufPart(std::string_view input) {
  using namespace policy_model;
  const std::string first = InputFolder() + "/m-00001-of-00002.gguf";
  static const bool made = [&] {
    WriteInput(first, Part(0, "a"));
    return true;
  }();
  Use(made);
  WriteInput(InputFolder() + "/m-00002-of-00002.gguf", input);
  const auto reader = GgufReader::Open(first);
  for (const auto& [name, tensor] : reader->tensors())
    Use(static_cast<size_t>(tensor.bytes.front()) + static_cast<size_t>(tensor.bytes.back()));
}

Seeds GgufPartSeeds() { return {Part(1, "b"), Part(1, "a"), Part(0, "b")}; }

void FuzzAdapterConfig(std::string_view input) {
  using namespace policy_model;
  WriteInput(InputFolder() + "/" + kAdapterConfig, input);
  const AdapterConfig read = ReadAdapterConfig(InputFolder());
  WriteAdapterConfig(read.spec, read.base_model, InputFolder());
  const AdapterConfig again = ReadAdapterConfig(InputFolder());
  PLUMB_CHECK(again.spec == read.spec && again.base_model == read.base_model,
              "an adapter's config changed on its way");
}

Seeds AdapterConfigSeeds() {
  return {
      R"({"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":["q_proj","v_proj"],"bias":"none","use_dora":false})",
      R"({"peft_type":"LORA","r":4,"lora_alpha":0.5,"target_modules":"all-linear","base_model_name_or_path":"../base","rank_pattern":{}})",
      R"({"peft_type":"PLUMB_TASKS","r":4,"lora_alpha":8,"target_modules":"all-linear","plumb_tasks":{"adapters":3,"tasks":["a","b"],"task_tokens":2}})",
      R"({"peft_type":"LORA","r":1,"lora_alpha":1e308,"target_modules":["x"],"modules_to_save":["y"],"task_type":"CAUSAL_LM"})"};
}

void FuzzSpecialTokens(std::string_view input) {
  const auto [config, map] = Halves(input);
  WriteInput(InputFolder() + "/tokenizer_config.json", config);
  WriteInput(InputFolder() + "/special_tokens_map.json", map.empty() ? "{}" : map);
  for (const auto& [key, text] : ReadSpecialTokens(InputFolder())) Use(key.size() + text.size());
}

Seeds SpecialTokenSeeds() {
  return {
      Joined(
          R"({"bos_token":"<s>","eos_token":{"content":"</s>","lstrip":false},"pad_token":null})",
          R"({"eos_token":"<|end|>"})"),
      R"({"additional_special_tokens":["<a>"],"unk_token":"<unk>","model_max_length":1e30})"};
}

}  // namespace plumb::fuzz
