// The hand-over of weights from a learner to an actor on another device: milliseconds from the call
// that publishes a version to the actor's having it verified, GB a second, and whether the digests
// are equal.
//
//   hand_over_bench [--device cpu|cuda] [--shapes "tiny 0.5B 7B"] [--processes 1|2] [--rounds 5]
//
// With cuda the learner has the first GPU and the actor the second (the first, too, where there is
// one only), bfloat16. --processes 1: the actor is a thread, and copies go from GPU to GPU; 2: a
// process, and they go through a handle of CUDA IPC. Both take the way of a run with roles =
// "processes": learner/loop/weight_publisher.h, actor/weight_subscriber.h. On the CPU (tiny) it is
// the same by memcpy, of a process through the socket.
// Prints a line a shape: median and best of the rounds, the part in which the learner waited
// (publish), and how the bytes came.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "actor/weight_subscriber.h"
#include "bench/bench_program.h"
#include "common/base/error.h"
#include "common/base/rng.h"
#include "kernels/device/lent_memory.h"
#include "learner/loop/weight_publisher.h"
#include "policy_model/memory/weights.h"

namespace plumb {
namespace {

using Clock = std::chrono::steady_clock;

struct Arguments {
  std::string device = "cpu", shapes;
  int64_t processes = 1, rounds = 5;
};

[[noreturn]] void Fail(const std::string& why) { bench::Fail("hand_over_bench", why); }

policy_model::ModelShape ShapeOf(const std::string& name) {
  policy_model::ModelShape s;
  s.max_positions = 128;
  if (name == "tiny") {
    s.layers = 2, s.hidden = 128, s.heads = 4, s.kv_heads = 4, s.head_dim = 32, s.ffn = 384;
    s.vocab = 26;
    s.tied = true;
    return s;
  }
  s.family = "qwen2";
  s.attention_bias = true;
  if (name == "0.5B") {
    s.layers = 24, s.hidden = 896, s.heads = 14, s.kv_heads = 2, s.head_dim = 64, s.ffn = 4864;
    s.vocab = 151936;
    s.tied = true;
    return s;
  }
  if (name != "7B") Fail("no shape " + name + ": tiny, 0.5B, 7B");
  s.layers = 28, s.hidden = 3584, s.heads = 28, s.kv_heads = 4, s.head_dim = 128, s.ffn = 18944;
  s.vocab = 152064;
  return s;
}

// Bytes that no two MiB have in common, in little time.
void Fill(policy_model::FlatBuffer& flat, uint64_t seed) {
  constexpr size_t kMiB = size_t{1} << 20;
  std::vector<std::byte> piece(64 * kMiB);
  auto* words = reinterpret_cast<uint64_t*>(piece.data());
  for (size_t i = 0; i < piece.size() / sizeof(uint64_t); ++i)
    words[i] = (i + 1) * 0x9E3779B97F4A7C15 & 0x3FFF3FFF3FFF3FFF;  // finite
  for (size_t at = 0; at < flat.bytes(); at += piece.size()) {
    const size_t n = std::min(piece.size(), flat.bytes() - at);
    for (size_t m = 0; m < n; m += kMiB)
      words[m / sizeof(uint64_t)] = (seed << 20 | (at + m) >> 20) & 0x3FFF;
    flat.CopyFromHost(std::span(piece).first(n),
                      static_cast<int64_t>(at / ElementSize(flat.dtype())));
  }
}

// What the actor tells of a version.
struct Arrived {
  int64_t version = -1;
  int64_t at_ns = 0;  // of the steady clock, which all processes of a machine share
  uint64_t borrowed = 0;
  char digest[40] = {};
};

int64_t NowNs() { return Clock::now().time_since_epoch().count(); }

// Takes versions 0 to `rounds` and writes what it saw to `out`.
void Act(const policy_model::ModelShape& shape, Device device, DType dtype,
         const std::string& endpoint, int64_t rounds, int out) {
  const OwnedStream stream(device);
  actor::RemoteWeightSource source(endpoint);
  actor::FetchedPolicy policy(shape, stream, dtype, &source);
  for (int64_t version = 0; version <= rounds; ++version) {
    if (!policy.Update(version, After(std::chrono::milliseconds(120'000))))
      Fail("version " + std::to_string(version) + " did not arrive");
    Arrived arrived{
        .version = version, .at_ns = NowNs(), .borrowed = policy.counters().borrowed_sets};
    const Digest digest = policy.weights().ComputeDigest();
    std::memcpy(arrived.digest, digest.data(), std::min(digest.size(), sizeof arrived.digest - 1));
    if (write(out, &arrived, sizeof arrived) != sizeof arrived) Fail("nobody listens");
  }
}

void Learn(const std::string& name, const policy_model::ModelShape& shape, Device device,
           Device actor_device, DType dtype, const std::string& endpoint, const Arguments& a,
           int in) {
  const OwnedStream stream(device);
  policy_model::Weights weights(shape, stream, dtype);
  learner::WeightPublisher publisher(endpoint, {}, /*lends=*/true);
  std::vector<double> all_ms, publish_ms;
  bool equal = true;
  uint64_t borrowed = 0;
  for (int64_t version = 0; version <= a.rounds; ++version) {
    Fill(weights.flat(), static_cast<uint64_t>(version) + 1);
    const auto digests = weights.SetDigests();
    const WeightSet set{
        .name = digests[0].first,
        .digest = digests[0].second,
        .bytes = {static_cast<const std::byte*>(weights.flat().data()), weights.flat().bytes()},
        .device = device};
    const int64_t begin = NowNs();
    publisher.Publish({version, CombineSets(digests)}, std::span(&set, 1));
    const int64_t published = NowNs();
    Arrived arrived;
    if (read(in, &arrived, sizeof arrived) != sizeof arrived) Fail("the actor has ended");
    equal = equal && arrived.version == version && digests[0].second == arrived.digest;
    borrowed = arrived.borrowed;
    if (version == 0) continue;  // memory is taken, handles are opened
    all_ms.push_back(static_cast<double>(arrived.at_ns - begin) / 1e6);
    publish_ms.push_back(static_cast<double>(published - begin) / 1e6);
  }
  std::sort(all_ms.begin(), all_ms.end());
  std::sort(publish_ms.begin(), publish_ms.end());
  const double bytes = static_cast<double>(weights.flat().bytes()),
               median = all_ms[all_ms.size() / 2];
  std::printf(
      "%-5s %7.3f GB  %9.3f ms (best %.3f, publish %.3f)  %7.1f GB/s  digests %s  %s to %s, %s\n",
      name.c_str(), bytes / 1e9, median, all_ms[0], publish_ms[publish_ms.size() / 2],
      bytes / median / 1e6, equal ? "equal" : "DIFFER", DeviceName(device).c_str(),
      DeviceName(actor_device).c_str(), borrowed > 0 ? "borrowed" : "through the socket");
  std::fflush(stdout);
  if (!equal) std::exit(1);
}

// What both ends need to know; a child is forked before this process has touched CUDA.
void Run(const std::string& name, const Arguments& a) {
  const policy_model::ModelShape shape = ShapeOf(name);
  const DType dtype = DType::kBFloat16;
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("hand_over_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  std::filesystem::permissions(folder, std::filesystem::perms::owner_all);
  const std::string endpoint = "ipc://" + (folder / "weights").string();
  int ends[2];
  if (pipe(ends) != 0) Fail("no pipe");
  const auto devices = [&] {
    if (a.device == "cpu") return std::pair<Device, Device>(Device::kCpu, Device::kCpu);
    const int there = kernels::CudaDevices();
    if (there == 0) Fail("no GPU answers");
    return std::pair(Device::Cuda(0), Device::Cuda(there > 1 ? 1 : 0));
  };
  const pid_t learner = fork();
  if (learner == 0) {
    // A process of its own for each shape: one before has left CUDA's memory with it.
    pid_t other = -1;
    std::thread thread;
    if (a.processes == 2) {
      other = fork();
      if (other == 0) {
        Act(shape, devices().second, dtype, endpoint, a.rounds, ends[1]);
        std::_Exit(0);
      }
    } else {
      thread = std::thread([&] {
        try {
          Act(shape, devices().second, dtype, endpoint, a.rounds, ends[1]);
        } catch (const std::exception& e) {
          Fail(e.what());
        }
      });
    }
    if (a.processes == 2) close(ends[1]);  // the actor's end is the last one: reading ends with it
    const auto [from, to] = devices();
    Learn(name, shape, from, to, dtype, endpoint, a, ends[0]);
    if (thread.joinable()) thread.join();
    if (other > 0) waitpid(other, nullptr, 0);
    std::_Exit(0);
  }
  close(ends[0]);
  close(ends[1]);
  int status = 0;
  waitpid(learner, &status, 0);
  std::filesystem::remove_all(folder);
  if (status != 0) Fail(name + " failed");
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
  using namespace plumb;
  Arguments a;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    if (name == "--device") a.device = argv[i + 1];
    else if (name == "--shapes") a.shapes = argv[i + 1];
    else if (name == "--processes") a.processes = std::atoll(argv[i + 1]);
    else if (name == "--rounds") a.rounds = std::atoll(argv[i + 1]);
    else Fail("no option " + std::string(name));
  }
  if (argc % 2 == 0) Fail("the last option has no value");
  if (a.device != "cpu" && a.device != "cuda") Fail("--device is cpu or cuda");
  if (a.processes != 1 && a.processes != 2) Fail("--processes is 1 or 2");
  if (a.rounds < 1) Fail("--rounds takes a number from 1 on");
  if (a.shapes.empty()) a.shapes = a.device == "cpu" ? "tiny" : "0.5B 7B";
  std::istringstream words(a.shapes);
  try {
    for (std::string name; words >> name;) Run(name, a);
  } catch (const Error& e) {
    Fail(e.what());
  }
  return 0;
}
