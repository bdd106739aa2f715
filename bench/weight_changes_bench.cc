// How much of a model's weights an update changes: blocks, numbers, and the bytes of
// run.weight_deltas.
//
//   bench/weight_changes_bench BEFORE.safetensors AFTER.safetensors [BYTES OF A NUMBER, 2]
//
// Two files of one model, such as those of two checkpoints of a run. Said are the shares of equal
// numbers and of equal blocks of 64 KiB and 1 MiB, what the version after takes as what has changed
// (common/net/weights/block_change.h), in which forms, and how long it takes to say so.
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "bench/bench_program.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash/digest.h"
#include "common/net/weights/block_change.h"

namespace plumb::bench {
namespace {

constexpr size_t kLargest = size_t{64} << 30;

// What lies behind the header of a safetensors file.
std::span<const std::byte> DataOf(const std::string& file) {
  uint64_t header = 0;
  if (file.size() < sizeof header) Fail("weight_changes_bench", "a file of no header");
  std::memcpy(&header, file.data(), sizeof header);
  if (header > file.size() - sizeof header) Fail("weight_changes_bench", "no safetensors file");
  return std::as_bytes(std::span(file)).subspan(sizeof header + header);
}

double EqualShare(std::span<const std::byte> a, std::span<const std::byte> b, size_t step) {
  size_t equal = 0, all = 0;
  for (size_t at = 0; at < a.size(); at += step, ++all) {
    const size_t n = std::min(step, a.size() - at);
    equal += std::memcmp(a.data() + at, b.data() + at, n) == 0 ? 1 : 0;
  }
  return 100.0 * static_cast<double>(equal) / static_cast<double>(std::max<size_t>(1, all));
}

int Run(int argc, char** argv) {
  if (argc < 3) Fail("weight_changes_bench", "name two files of one model");
  const std::string before = RealFileSystem().ReadFile(argv[1], kLargest),
                    after = RealFileSystem().ReadFile(argv[2], kLargest);
  const auto a = DataOf(before), b = DataOf(after);
  if (a.size() != b.size()) Fail("weight_changes_bench", "files of different size");
  const size_t number = argc > 3 ? static_cast<size_t>(std::atoi(argv[3])) : 2;
  if (number == 0) Fail("weight_changes_bench", "numbers have bytes");
  std::printf("%.1f MB; equal: numbers %.3f %%, blocks of 64 KiB %.2f %%, of 1 MiB %.2f %%\n",
              static_cast<double>(a.size()) / 1e6, EqualShare(a, b, number),
              EqualShare(a, b, size_t{64} << 10), EqualShare(a, b, kDigestBlockBytes));
  std::array<int64_t, 3> forms{};
  size_t bytes = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (size_t at = 0; at < a.size(); at += kDigestBlockBytes) {
    const size_t n = std::min(kDigestBlockBytes, a.size() - at);
    const std::string encoded = EncodeBlock(b.subspan(at, n), a.subspan(at, n));
    bytes += encoded.size();
    ++forms[static_cast<size_t>(encoded[0])];
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf(
      "as what has changed: %.3f MB, %.2f %%, in %.3f s (%.1f GB/s); blocks whole %lld, as "
      "places %lld, as marks %lld\n",
      static_cast<double>(bytes) / 1e6,
      100.0 * static_cast<double>(bytes) / static_cast<double>(a.size()), seconds,
      static_cast<double>(a.size()) / 1e9 / seconds, static_cast<long long>(forms[0]),
      static_cast<long long>(forms[1]), static_cast<long long>(forms[2]));
  return 0;
}

}  // namespace
}  // namespace plumb::bench

int main(int argc, char** argv) {
  try {
    return plumb::bench::Run(argc, argv);
  } catch (const plumb::Error& e) {
    plumb::bench::Fail("weight_changes_bench", e.what());
  }
}
