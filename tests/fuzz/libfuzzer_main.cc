// The libFuzzer binary: plumb_fuzz --target=NAME [--seeds=DIR] [libFuzzer's own options] DIR...
// --seeds fills DIR with the target's seeds before libFuzzer reads it; --list prints the targets.
// libFuzzer leaves options with two dashes alone.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "targets.h"

namespace {
const plumb::fuzz::Target* target = nullptr;
}

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const char* seeds = nullptr;
  for (int i = 1; i < *argc; ++i) {
    const char* arg = (*argv)[i];
    if (std::strcmp(arg, "--list") == 0) {
      for (const auto& t : plumb::fuzz::Targets()) std::puts(t.name);
      std::exit(0);
    }
    if (std::strncmp(arg, "--target=", 9) == 0) target = plumb::fuzz::FindTarget(arg + 9);
    if (std::strncmp(arg, "--seeds=", 8) == 0) seeds = arg + 8;
  }
  if (target == nullptr) {
    std::fprintf(stderr, "say --target=NAME; --list has the names\n");
    std::exit(2);
  }
  plumb::fuzz::RunTarget(*target, "");  // tables that are built once are no slow input
  if (seeds != nullptr) {
    std::filesystem::create_directories(seeds);
    int n = 0;
    for (const std::string& seed : target->seeds())
      plumb::fuzz::WriteInput(std::string(seeds) + "/seed" + std::to_string(n++), seed);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  plumb::fuzz::RunTarget(*target, {reinterpret_cast<const char*>(data), size});
  return 0;
}
