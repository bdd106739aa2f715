// Every reader of bytes from outside as a function of bytes, for libFuzzer and for the smoke test.
//
// A target gives its input to one parser and looks at what comes out. It may refuse with an Error
// (a RowProblem, a failed score); everything else that escapes ends the process: that is the
// finding. Targets that take two texts cut the input at its first NUL; those of several decoders
// choose by the first byte.
// Thread safety: one thread; targets keep files of their own under /dev/shm or /tmp. No target
// links LibTorch.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb::fuzz {

using Seeds = std::vector<std::string>;

struct Target {
  const char* name;
  void (*run)(std::string_view input);
  Seeds (*seeds)();  // inputs from which mutation begins: made here or cut from tests/golden
};

// The table, in targets.cc.
std::span<const Target> Targets();
// nullptr: no such target.
const Target* FindTarget(std::string_view name);

// Runs a target; an Error, what a parser is meant to throw, ends the run as an accepted input does.
void RunTarget(const Target& target, std::string_view input);

// The input at its first NUL: {before, behind}.
std::pair<std::string_view, std::string_view> Halves(std::string_view input);
// A seed of two texts.
std::string Joined(std::string_view first, std::string_view second);
// Any value computed from what a parser gave: keeps the compiler from leaving the parser out.
void Use(size_t value);

// The input as a file, for parsers that take paths. One file a process, written anew each time, in
// memory.
std::string InputFile(std::string_view input);
// An empty folder of this process, for parsers that take folders; the same one each time, its files
// stay.
const std::string& InputFolder();
void WriteInput(const std::string& path, std::string_view input);

// A file of the source tree, e.g. "tests/golden/tokenizer.json".
std::string SourceFile(const std::string& path);

// environment_fuzz.cc
void FuzzToolCalls(std::string_view input);
Seeds ToolCallSeeds();
void FuzzEnvironmentReply(std::string_view input);
Seeds EnvironmentReplySeeds();
// wire_fuzz.cc
void FuzzRecords(std::string_view input);
Seeds RecordSeeds();
void FuzzFrames(std::string_view input);
Seeds FrameSeeds();
void FuzzStoreRecords(std::string_view input);
Seeds StoreRecordSeeds();
// model_files_fuzz.cc
void FuzzSafetensors(std::string_view input);
Seeds SafetensorsSeeds();
void FuzzSafetensorsIndex(std::string_view input);
Seeds SafetensorsIndexSeeds();
void FuzzGguf(std::string_view input);
Seeds GgufSeeds();
void FuzzTokenizer(std::string_view input);
Seeds TokenizerSeeds();
void FuzzTokenizerText(std::string_view input);
Seeds TokenizerTextSeeds();
void FuzzModelConfig(std::string_view input);
Seeds ModelConfigSeeds();
void FuzzChatTemplate(std::string_view input);
Seeds ChatTemplateSeeds();
void FuzzManifest(std::string_view input);
Seeds ManifestSeeds();
// model_folder_fuzz.cc
void FuzzGgufPart(std::string_view input);
Seeds GgufPartSeeds();
void FuzzAdapterConfig(std::string_view input);
Seeds AdapterConfigSeeds();
void FuzzSpecialTokens(std::string_view input);
Seeds SpecialTokenSeeds();
// data_fuzz.cc
void FuzzRows(std::string_view input);
Seeds RowSeeds();
void FuzzCsv(std::string_view input);
Seeds CsvSeeds();
void FuzzGzip(std::string_view input);
Seeds GzipSeeds();
void FuzzParquet(std::string_view input);
Seeds ParquetSeeds();
void FuzzJson(std::string_view input);
Seeds JsonSeeds();
void FuzzDialogue(std::string_view input);
Seeds DialogueSeeds();
// recipe_fuzz.cc
void FuzzRecipe(std::string_view input);
Seeds RecipeSeeds();
void FuzzOverride(std::string_view input);
Seeds OverrideSeeds();
void FuzzAddresses(std::string_view input);
Seeds AddressSeeds();
// reward_fuzz.cc
void FuzzPluginReply(std::string_view input);
Seeds PluginReplySeeds();
void FuzzJsonReply(std::string_view input);
Seeds JsonReplySeeds();
void FuzzJsonSchema(std::string_view input);
Seeds JsonSchemaSeeds();
void FuzzRegex(std::string_view input);
Seeds RegexSeeds();
void FuzzMath(std::string_view input);
Seeds MathSeeds();
void FuzzAnswer(std::string_view input);
Seeds AnswerSeeds();
// serve_fuzz.cc
void FuzzServeRequest(std::string_view input);
Seeds ServeRequestSeeds();

}  // namespace plumb::fuzz
