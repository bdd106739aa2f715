// Reliability row 16: hand-made files that lie about themselves, made here. Each in a process of
// its own: it ends with an Error, never with a crash, a hang, another exception or success, soon
// and in little memory.
#include <gtest/gtest.h>

#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash/sha256.h"
#include "common/record/codec.h"
#include "common/record/group_body.h"
#include "common/record/schema/trajectory_generated.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"
#include "learner/update/checkpoint_manifest.h"
#include "malicious_corpus.h"
#include "policy_model/families/adapter_table.h"
#include "policy_model/families/model_config.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/gguf/convert.h"
#include "replay/datasets/rows/dataset_import.h"
#include "tests/testing/temp_folder.h"

namespace plumb::fuzz {
namespace {

// The bar is 100 ms. A shared machine is given five times that, a sanitizer what it costs; the
// slowest is printed.
#ifdef PLUMB_SANITIZED
constexpr double kMaxSeconds = 10;
constexpr time_t kHangSeconds = 60;
#else
constexpr double kMaxSeconds = 0.5;
constexpr time_t kHangSeconds = 10;
#endif
constexpr uint64_t kMaxExtraMemory = uint64_t{64} << 20;  // beside 3 x the file

// Reads the folder as a user of that kind of file would.
void Read(Kind kind, const std::string& folder) {
  using namespace policy_model;
  const std::string file = folder + "/" + FileName(kind);
  switch (kind) {
    case Kind::kSafetensors: SafetensorsReader::OpenDirectory(folder); return;
    case Kind::kGguf: ConvertGguf(file, folder + "/out", DType::kFloat32, false); return;
    case Kind::kTokenizer: Tokenizer::Load(folder); return;
    case Kind::kConfig: ReadModelConfig(folder); return;
    case Kind::kAdapter: ReadAdapterConfig(folder); return;
    case Kind::kTemplate: {
      const std::vector<Message> messages = {{"user", "hello"}};
      ChatTemplate::LoadOrNull(folder)->Render(messages, true);
      return;
    }
    case Kind::kRecord:
      GroupBody::Open(Payload(RealFileSystem().ReadFile(file, kMaxRecordBytes)), /*summed=*/true)
          .Unpack();
      return;
    case Kind::kPrompt:
      DecodePrompt(BytesOf(RealFileSystem().ReadFile(file, kMaxRecordBytes)));
      return;
    case Kind::kRows: replay::ImportPrompts(file, {}); return;
    case Kind::kRecipe: configs::LoadRecipe(file); return;
    case Kind::kManifest:
      learner::ReadManifest(RealFileSystem().ReadFile(file, size_t{16} << 20), file);
      return;
  }
}

double ProcessorSeconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Outcome {
  bool refused = false;
  double seconds = 0;
  uint64_t memory = 0;  // bytes of resident memory that the reading added at its peak
  std::string text;     // the error, or what happened instead
};

uint64_t StatusBytes(const char* key) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(key, 0) == 0)
      return std::strtoull(line.c_str() + std::strlen(key), nullptr, 10) * 1024;
  }
  return 0;
}

Outcome Try(Kind kind, const std::string& folder) {
  int ends[2];
  PLUMB_CHECK(pipe(ends) == 0);
  const pid_t child = fork();
  PLUMB_CHECK(child >= 0);
  if (child == 0) {
    // Time of the processor: the machine may be busy with other things, and readers wait for
    // nothing.
    const itimerval hang{{0, 0}, {kHangSeconds, 0}};
    setitimer(ITIMER_PROF, &hang, nullptr);
    std::ofstream("/proc/self/clear_refs") << "5";  // the peak begins anew
    const uint64_t before = StatusBytes("VmRSS:");
    const double started = ProcessorSeconds();
    std::string text;
    char how = 'a';
    try {
      Read(kind, folder);
      text = "was accepted";
    } catch (const Error& e) {
      how = 'e';
      text = e.what();
    } catch (const std::exception& e) {
      text = std::string("threw something else: ") + e.what();
    }
    const double took = ProcessorSeconds() - started;
    const uint64_t peak = StatusBytes("VmHWM:");
    text = std::string(1, how) + " " + std::to_string(took) + " " +
           std::to_string(peak - std::min(peak, before)) + " " + text.substr(0, 20000);
    [[maybe_unused]] const ssize_t n = write(ends[1], text.data(), text.size());
    _exit(0);
  }
  close(ends[1]);
  std::string said;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  Outcome out;
  if (said.empty()) {
    out.text = WIFSIGNALED(status) ? std::string("ended by ") + strsignal(WTERMSIG(status))
                                   : "ended without a word";
    return out;
  }
  out.refused = said[0] == 'e';
  char* end = nullptr;
  out.seconds = std::strtod(said.c_str() + 2, &end);
  out.memory = std::strtoull(end + 1, &end, 10);
  out.text = end + 1;
  return out;
}

class MaliciousCorpus : public ::testing::TestWithParam<Kind> {};

TEST_P(MaliciousCorpus, EveryFileIsRefusedSoonAndInLittleMemory) {
  double slowest = 0;
  uint64_t largest = 0;
  std::string slowest_name, largest_name;
  const std::vector<Malicious> cases = CorpusOf(GetParam());
  for (const Malicious& c : cases) {
    SCOPED_TRACE(c.name);
    testing::TempFolder folder;
    uint64_t bytes = 0;
    for (const auto& [name, content] : c.files()) {
      std::ofstream(folder / name, std::ios::binary) << content;
      bytes += content.size();
    }
    const Outcome got = Try(GetParam(), folder.path());
    EXPECT_TRUE(got.refused) << got.text;
    EXPECT_LT(got.seconds, kMaxSeconds) << got.text;
#ifndef PLUMB_SANITIZED  // whose own memory is not the reader's
    EXPECT_LE(got.memory, 3 * bytes + kMaxExtraMemory) << bytes << " bytes of input; " << got.text;
#endif
    EXPECT_LT(got.text.size(), 20000u) << "a message as long as its input";
    if (std::getenv("PLUMB_CORPUS_VERBOSE") != nullptr) {
      std::printf("  %-40s %8.1f ms %6.1f MiB of %7.1f KiB: %.200s\n", c.name.c_str(),
                  got.seconds * 1000, static_cast<double>(got.memory) / (1 << 20),
                  static_cast<double>(bytes) / 1024, got.text.c_str());
    }
    if (got.seconds > slowest) slowest = got.seconds, slowest_name = c.name;
    if (got.memory > largest) largest = got.memory, largest_name = c.name;
  }
  std::printf("[          ] %zu files, slowest %.1f ms (%s), most memory %.1f MiB (%s)\n",
              cases.size(), slowest * 1000, slowest_name.c_str(),
              static_cast<double>(largest) / (1 << 20), largest_name.c_str());
}

INSTANTIATE_TEST_SUITE_P(All, MaliciousCorpus, ::testing::ValuesIn(kKinds),
                         [](const auto& info) { return std::string(KindName(info.param)); });

TEST(MaliciousCorpusSize, IsAtLeastWhatReliabilityAsksFor) {
  size_t files = 0;
  for (const Kind kind : kKinds) files += CorpusOf(kind).size();
  EXPECT_GE(files, 150u);
  std::printf("[          ] %zu malicious files\n", files);
}

// The same ways to read take what is well formed: a refusal means something.
TEST(MaliciousCorpusControl, WellFormedFilesAreAccepted) {
  for (const Kind kind : kKinds) {
    SCOPED_TRACE(KindName(kind));
    testing::TempFolder folder;
    for (const auto& [name, content] : WellFormed(kind))
      std::ofstream(folder / name, std::ios::binary) << content;
    const Outcome got = Try(kind, folder.path());
    EXPECT_FALSE(got.refused);
    EXPECT_EQ(got.text, "was accepted");
  }
}

}  // namespace
}  // namespace plumb::fuzz
