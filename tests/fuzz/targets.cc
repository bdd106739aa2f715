#include "targets.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"

namespace plumb::fuzz {
namespace {

constexpr std::array kTargets = {
    Target{"records", FuzzRecords, RecordSeeds},
    Target{"frames", FuzzFrames, FrameSeeds},
    Target{"store_records", FuzzStoreRecords, StoreRecordSeeds},
    Target{"safetensors", FuzzSafetensors, SafetensorsSeeds},
    Target{"safetensors_index", FuzzSafetensorsIndex, SafetensorsIndexSeeds},
    Target{"gguf", FuzzGguf, GgufSeeds},
    Target{"gguf_part", FuzzGgufPart, GgufPartSeeds},
    Target{"adapter_config", FuzzAdapterConfig, AdapterConfigSeeds},
    Target{"special_tokens", FuzzSpecialTokens, SpecialTokenSeeds},
    Target{"tokenizer", FuzzTokenizer, TokenizerSeeds},
    Target{"tokenizer_text", FuzzTokenizerText, TokenizerTextSeeds},
    Target{"model_config", FuzzModelConfig, ModelConfigSeeds},
    Target{"chat_template", FuzzChatTemplate, ChatTemplateSeeds},
    Target{"manifest", FuzzManifest, ManifestSeeds},
    Target{"rows", FuzzRows, RowSeeds},
    Target{"csv", FuzzCsv, CsvSeeds},
    Target{"gzip", FuzzGzip, GzipSeeds},
    Target{"parquet", FuzzParquet, ParquetSeeds},
    Target{"json", FuzzJson, JsonSeeds},
    Target{"dialogue", FuzzDialogue, DialogueSeeds},
    Target{"recipe", FuzzRecipe, RecipeSeeds},
    Target{"tool_calls", FuzzToolCalls, ToolCallSeeds},
    Target{"environment_reply", FuzzEnvironmentReply, EnvironmentReplySeeds},
    Target{"override", FuzzOverride, OverrideSeeds},
    Target{"addresses", FuzzAddresses, AddressSeeds},
    Target{"plugin_reply", FuzzPluginReply, PluginReplySeeds},
    Target{"json_reply", FuzzJsonReply, JsonReplySeeds},
    Target{"json_schema", FuzzJsonSchema, JsonSchemaSeeds},
    Target{"regex", FuzzRegex, RegexSeeds},
    Target{"math", FuzzMath, MathSeeds},
    Target{"answer", FuzzAnswer, AnswerSeeds},
    Target{"serve_request", FuzzServeRequest, ServeRequestSeeds},
};

volatile size_t sink = 0;

void WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    PLUMB_CHECK(n > 0, "writing an input");
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace

std::span<const Target> Targets() { return kTargets; }

const Target* FindTarget(std::string_view name) {
  const auto found = std::find_if(kTargets.begin(), kTargets.end(),
                                  [&](const Target& t) { return name == t.name; });
  return found == kTargets.end() ? nullptr : &*found;
}

void RunTarget(const Target& target, std::string_view input) {
  try {
    target.run(input);
  } catch (const Error&) {
  }
}

std::pair<std::string_view, std::string_view> Halves(std::string_view input) {
  const size_t cut = input.find('\0');
  if (cut == std::string_view::npos) return {input, {}};
  return {input.substr(0, cut), input.substr(cut + 1)};
}

std::string Joined(std::string_view first, std::string_view second) {
  std::string out(first);
  out.push_back('\0');
  return out.append(second);
}

void Use(size_t value) { sink = value; }

std::string InputFile(std::string_view input) {
  static const int fd = memfd_create("input", MFD_CLOEXEC);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  PLUMB_CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0, "a file in memory");
  WriteAll(fd, input);
  return path;
}

const std::string& InputFolder() {
  static const struct Folder {
    Folder() {
      path =
          (access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp") + std::string("/plumb_fuzz_XXXXXX");
      PLUMB_CHECK(mkdtemp(path.data()) != nullptr, path);
    }
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
    std::string path;
  } folder;
  return folder.path;
}

void WriteInput(const std::string& path, std::string_view input) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  PLUMB_CHECK(fd >= 0, path);
  WriteAll(fd, input);
  close(fd);
}

std::string SourceFile(const std::string& path) {
  return RealFileSystem().ReadFile(std::string(PLUMB_SOURCE_DIR) + "/" + path, size_t{64} << 20);
}

}  // namespace plumb::fuzz
