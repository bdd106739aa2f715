// plumb doctor: what this machine has, what this build was made for, what is missing and how to get
// it.
#include <fcntl.h>
#include <linux/filter.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <vector>

#include "common/base/size_text.h"
#include "common/sandbox/child_process.h"
#include "common/sandbox/sandbox.h"
#include "kernels/device/lent_memory.h"
#include "kernels/device/stream.h"
#include "policy_model/memory/torch_version.h"
#include "policy_model/transformer.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/commands/doctor/gpu_report.h"
#include "run/commands/manual.h"
#include "run/session/built.h"

// From run/CMakeLists.txt. PLUMB_COMPILED_ISA: names of /proc/cpuinfo that the numeric folders were
// compiled to use; empty: none beyond the architecture's.

namespace plumb::run {
namespace {

enum class Grade { kOk, kNote, kMissing };  // kMissing: training cannot run

struct Finding {
  std::string topic;
  Grade grade;
  std::string text;
  std::string remedy;
};

std::vector<std::string> Words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> out;
  for (std::string word; in >> word;) out.push_back(word);
  return out;
}

// The rest of the first line of `path` that begins with `key`, after the colon.
std::string LineOf(const std::string& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(key, 0) != 0) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

std::string FirstLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::string ProcessorFlags() {
  const std::string flags = LineOf("/proc/cpuinfo", "flags");
  return flags.empty() ? LineOf("/proc/cpuinfo", "Features") : flags;
}

Finding Processor() {
  utsname system{};
  uname(&system);
  std::string name = LineOf("/proc/cpuinfo", "model name");
  if (name.empty()) name = system.machine;
  const std::string flag_line = ProcessorFlags();
  const auto flags = Words(flag_line);
  const std::set<std::string> have(flags.begin(), flags.end());
  std::string fast;
  const auto wanted = Words(PLUMB_COMPILED_ISA);
  const std::string missing = WordsMissing(PLUMB_COMPILED_ISA, flag_line);
  for (const char* feature : {"avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16"}) {
    if (have.count(feature)) fast += std::string(" ") + feature;
  }
  std::string text =
      name + "; has" + (fast.empty() ? " none of the vector units we look for" : fast);
  if (wanted.empty())
    return {"processor", Grade::kOk,
            text + "; built without PLUMB_NATIVE, for any processor of this kind", ""};
  if (!missing.empty()) {
    return {"processor", Grade::kMissing,
            text + "; this program was built for a processor with" + missing,
            "build on this machine: make build"};
  }
  return {"processor", Grade::kOk, text + "; everything the build uses is there", ""};
}

Finding Cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int allowed = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  std::string text = std::to_string(allowed) + " cores allowed, " +
                     std::to_string(policy_model::Threads()) + " threads by default (run.threads)";
  const auto quota = Words(FirstLine("/sys/fs/cgroup/cpu.max"));  // "max 100000" or "200000 100000"
  if (quota.size() == 2 && quota[0] != "max") {
    const double cores = std::atof(quota[0].c_str()) / std::max(1.0, std::atof(quota[1].c_str()));
    char limit[64];
    std::snprintf(limit, sizeof limit, "; the container may use %.1f of them", cores);
    text += limit;
    if (cores + 0.01 < policy_model::Threads()) {
      return {"threads", Grade::kNote, text,
              "more threads than that only wait: --set run.threads=" +
                  std::to_string(std::max(1, static_cast<int>(cores)))};
    }
  }
  return {"threads", Grade::kOk, text, ""};
}

Finding Memory() {
  auto available =
      static_cast<int64_t>(std::atof(LineOf("/proc/meminfo", "MemAvailable").c_str()) * 1024);
  std::string text = SizeText(available) + " available";
  const std::string limit = FirstLine("/sys/fs/cgroup/memory.max");
  if (!limit.empty() && limit != "max") {
    const auto left = static_cast<int64_t>(
        std::atof(limit.c_str()) - std::atof(FirstLine("/sys/fs/cgroup/memory.current").c_str()));
    text += ", " + SizeText(left) + " left of the container's limit";
    available = std::min(available, left);
  }
  if (available < 2'000'000'000) {
    return {
        "memory", Grade::kNote, text,
        "the demo needs about 1 GB; lower rollout.kv_budget_mb and max_batch for larger models"};
  }
  return {"memory", Grade::kOk, text, ""};
}

Finding Disk() {
  struct statvfs disk {};
  if (statvfs(".", &disk) != 0)
    return {"disk", Grade::kNote, "cannot look at the current folder", ""};
  const auto free =
      static_cast<int64_t>(static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize));
  if (access(".", W_OK) != 0)
    return {"disk", Grade::kNote, "the current folder cannot be written",
            "use --out with a folder that can"};
  if (free < 1'000'000'000)
    return {"disk", Grade::kNote, SizeText(free) + " free here",
            "a run keeps checkpoints and its store: free some space or use --out"};
  return {"disk", Grade::kOk, SizeText(free) + " free here", ""};
}

// The loaded library: which it says that it is, and where it lies, which is the name after the last
// blank of its line in /proc/self/maps.
Finding LibTorch() {
  std::ifstream maps("/proc/self/maps");
  std::string library;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/libtorch_cpu.so") != std::string::npos) {
      library = line.substr(line.find('/'));
      break;
    }
  }
  if (library.empty())
    return {"LibTorch", Grade::kMissing, "not loaded",
            "make setup, or PLUMB_TORCH=/path/to/libtorch make build"};
  const std::string version = policy_model::TorchVersion(),
                    headers = policy_model::TorchVersionOfHeaders();
  const std::string text = version + " at " + std::filesystem::path(library).parent_path().string();
  if (!version.starts_with(headers)) {
    return {"LibTorch", Grade::kNote, text + ", and this program was built for " + headers,
            "another version may compute otherwise, or not at all: build again with this one"};
  }
  return {"LibTorch", Grade::kOk, text, ""};
}

// "; actors on another: rollout.device, weights go there directly".
[[maybe_unused]] std::string BetweenGpus(int there) {
  if (there < 2) return "";
  int direct = 0, pairs = 0;
  for (int from = 0; from < there; ++from) {
    for (int to = 0; to < there; ++to) {
      if (from == to) continue;
      ++pairs;
      direct += kernels::Reaches(Device::Cuda(from), Device::Cuda(to)) ? 1 : 0;
    }
  }
  return "; actors on others than the learner: rollout.device = \"cuda\", weights go there " +
         (direct == pairs ? "directly"
          : direct == 0   ? "through the host's memory"
                          : "directly between " + std::to_string(direct) + " of " +
                              std::to_string(pairs) + " pairs");
}

Finding Gpu() {
  const bool driver =
      access("/proc/driver/nvidia/version", R_OK) == 0 || access("/dev/nvidiactl", F_OK) == 0;
#ifdef PLUMB_CUDA
  if (const int there = kernels::CudaDevices(); there > 0) {
    const std::string named =
        there == 1 ? "\"cuda\"" : "\"cuda:0\" to \"cuda:" + std::to_string(there - 1) + "\"";
    return {"GPU", Grade::kOk,
            "CUDA build, GPUs that answer: " + std::to_string(there) + " (run.device = " + named +
                ")" + BetweenGpus(there),
            ""};
  }
  return {"GPU", Grade::kNote, "CUDA build, but no GPU answers: runs go on the CPU",
          driver ? "a driver is here: does nvidia-smi work?"
                 : "install the NVIDIA driver, or use the release preset"};
#else
  if (driver) {
    return {"GPU", Grade::kNote, "a GPU's driver is here, but this build has no CUDA",
            "with nvcc on PATH: cmake --preset cuda && ninja -C build-cuda plumb"};
  }
  return {"GPU", Grade::kOk, "none, and this build needs none", ""};
#endif
}

Finding Sandbox() {
  const Problem& problem = ProbeNamespaces();
  if (SeccompFilter(SeccompProfile::kProgram, false).empty()) {
    return {"sandbox", Grade::kNote,
            "reward code of yours will refuse to start: libseccomp has no filter of system calls "
            "for this processor",
            "to run it with fewer walls: --set reward.allow_unsandboxed=true"};
  }
  if (!problem) {
    return {"sandbox", Grade::kOk,
            "bubblewrap and libseccomp work: reward code of yours runs isolated", ""};
  }
  return {"sandbox", Grade::kNote,
          "reward code of yours (plugin, program, python) will refuse to start: " + *problem,
          "or, for code you trust: --set reward.allow_unsandboxed=true. Built-in rules need no "
          "sandbox"};
}

Finding Python() {
  const std::string path = FindInPath("python3");
  if (path.empty())
    return {"python3", Grade::kNote, "not on PATH; only reward functions written in Python need it",
            "apt-get install python3"};
  return {"python3", Grade::kOk, path + " (only for reward functions written in Python)", ""};
}

int Doctor(bool json) {
  const std::vector<Finding> findings = {Processor(), Cores(), Memory(),  Disk(),
                                         LibTorch(),  Gpu(),   Sandbox(), Python()};
  bool able = true;
  for (const Finding& f : findings) able &= f.grade != Grade::kMissing;
  if (json) {
    nlohmann::ordered_json out = {{"able", able}, {"findings", nlohmann::ordered_json::array()}};
    for (const Finding& f : findings) {
      out["findings"].push_back({{"topic", f.topic},
                                 {"grade", f.grade == Grade::kOk     ? "ok"
                                           : f.grade == Grade::kNote ? "note"
                                                                     : "missing"},
                                 {"text", f.text},
                                 {"remedy", f.remedy}});
    }
    std::printf("%s\n", out.dump(1).c_str());
  } else {
    for (const Finding& f : findings) {
      std::printf("%-8s %-10s %s\n",
                  f.grade == Grade::kOk     ? "ok"
                  : f.grade == Grade::kNote ? "note"
                                            : "MISSING",
                  f.topic.c_str(), f.text.c_str());
      if (!f.remedy.empty()) std::printf("%-19s -> %s\n", "", f.remedy.c_str());
    }
    std::printf(able ? "Able to run.\n" : "Not able to run.\n");
  }
  return able ? 0 : ExitCodeOf(ErrorCode::kUnsupported);
}

// Macros of the compiler that built this file; the others are built by the same.
#ifdef __clang__
constexpr char kCompiler[] = "clang " __clang_version__;
#else
constexpr char kCompiler[] = "GCC " __VERSION__;
#endif

}  // namespace

std::string WordsMissing(const std::string& wanted, const std::string& have) {
  const std::vector<std::string> there = Words(have);
  std::string missing;
  for (const std::string& word : Words(wanted)) {
    if (std::find(there.begin(), there.end(), word) == there.end()) missing += " " + word;
  }
  return missing;
}

void CheckProcessor() {
  const std::string missing = WordsMissing(PLUMB_COMPILED_ISA, ProcessorFlags());
  if (missing.empty()) return;
  throw Error(ErrorCode::kUnsupported,
              "this program was compiled for a processor with" + missing +
                  ", which this one has not: build it on this machine (make build)");
}

std::string VersionText() {
  const std::string isa = PLUMB_COMPILED_ISA, cuda = PLUMB_CUDA_VERSION;
  return "plumb " + BuiltVersion() + "\ncommit     " + BuiltCommit() +
         "\nbuild      " PLUMB_BUILD_TYPE ", " + kCompiler + "\nbuilt for  " +
         (isa.empty() ? "any processor of this kind" : isa) + "\nprocessor  " + Processor().text +
         "\nCUDA       " + (cuda.empty() ? "not in this build" : cuda) + "\nLibTorch   " +
         LibTorch().text;
}

void AddDoctorCommand(CLI::App& app, CliResult& result) {
  app.set_version_flag("--version", VersionText, "What this program was built from and for");
  auto json = std::make_shared<bool>(false);
  CLI::App* doctor = app.add_subcommand(
      "doctor", "What this machine and this build can do; what is missing, and how to get it");
  doctor->add_flag("--json", *json, "one JSON object");
  auto gpu = std::make_shared<bool>(false);
  auto device = std::make_shared<std::string>("cuda");
  CLI::Option* of_gpu = doctor->add_flag(
      "--gpu", *gpu,
      "measure the GPU instead: copies, products, and what exact ones (run.exact) cost here; up to "
      "a minute");
  doctor->add_option("--device", *device, "cuda | cuda:N, of --gpu")
      ->needs(of_gpu)
      ->capture_default_str();
  doctor->callback([json, gpu, device, &result] {
    if (*gpu) std::fputs(GpuReport(*device, *json).c_str(), stdout);
    else result.exit_code = Doctor(*json);
  });

  auto shell = std::make_shared<std::string>();
  CLI::App* completion = app.add_subcommand(
      "completion",
      "What teaches a shell to complete verbs and options: source <(plumb completion "
      "bash), or into a file _plumb of zsh's fpath");
  completion->add_option("SHELL", *shell, "bash | zsh")->required()->check(OneOf({"bash", "zsh"}));
  completion->callback([shell, &app] {
    std::fputs((*shell == "bash" ? BashCompletion(app) : ZshCompletion(app)).c_str(), stdout);
  });
  app.add_subcommand("manual", "The manual page, for man -l")->group("")->callback([&app] {
    std::fputs(ManualPage(app).c_str(), stdout);
  });
}

}  // namespace plumb::run
