#include "kernels/device/lent_memory.h"

#include <charconv>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>

#include "common/base/error.h"
#ifdef PLUMB_CUDA
#include "kernels/device/cuda_check.h"
#endif

namespace plumb::kernels {
namespace {

constexpr char kWord[] = "lent1";

// Drawn once: numbers of processes are used again, also by other containers of the machine.
const std::string& ThisProcess() {
  static const std::string drawn = [] {
    std::random_device random;
    std::string text;
    for (int i = 0; i < 4; ++i) text += std::to_string(random()) + ".";
    return text;
  }();
  return drawn;
}

const std::string& ThisBoot() {
  static const std::string boot = [] {
    std::string id;
    std::ifstream in("/proc/sys/kernel/random/boot_id");
    in >> id;
    return id.empty() ? "unknown" : id;
  }();
  return boot;
}

std::string Hex(const std::string& bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char c : bytes) {
    out += kDigits[static_cast<unsigned char>(c) >> 4];
    out += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return out.empty() ? "-" : out;
}

std::string FromHex(const std::string& text) {
  std::string out;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(text.data() + i, text.data() + i + 2, value, 16);
    if (error != std::errc() || end != text.data() + i + 2) return {};
    out += static_cast<char>(value);
  }
  return out;
}

// The fields of a handle.
struct Lent {
  std::string process, boot, ipc;  // ipc as digits
  int ordinal = -1;                // -1: the CPU
  uint64_t address = 0, bytes = 0;
};

Lent Parse(const std::string& handle) {
  std::istringstream in(handle);
  std::string word;
  Lent lent;
  if (!(in >> word >> lent.process >> lent.boot >> lent.ordinal >> lent.address >> lent.bytes >>
        lent.ipc) ||
      word != kWord || lent.ordinal < -1 || lent.ordinal > 1024) {
    throw Error(ErrorCode::kCorruption, "a handle of lent memory is none: " + handle.substr(0, 80));
  }
  return lent;
}

#ifdef PLUMB_CUDA
// Once is enough; a second time CUDA says so, which is no error.
void LetReach(Device from, Device to) {
  if (from.is_cpu() || to.is_cpu() || from == to || !Reaches(from, to)) return;
  const OnDevice here(to);
  const cudaError_t error = cudaDeviceEnablePeerAccess(from.ordinal, 0);
  if (error == cudaErrorPeerAccessAlreadyEnabled) cudaGetLastError();
  else CheckCuda(error, "direct copies between two GPUs");
}
#endif

}  // namespace

bool Reaches(Device from, Device to) {
  if (from == to) return true;
#ifdef PLUMB_CUDA
  int can = 0;
  if (from.is_cuda() && to.is_cuda() &&
      cudaDeviceCanAccessPeer(&can, to.ordinal, from.ordinal) == cudaSuccess)
    return can != 0;
  cudaGetLastError();
#endif
  return false;
}

LentMemory::LentMemory(Device device, size_t bytes)
    : device_(device), bytes_(bytes), host_(nullptr, [](void*) {}) {
  if (device.is_cpu()) {
    host_ = MakeHostMemory(Device::kCpu, bytes);
    data_ = host_.get();
    return;
  }
#ifdef PLUMB_CUDA
  // Not of an allocator that cuts blocks into parts: a handle is of a whole allocation.
  const OnDevice here(device);
  void* made = nullptr;
  CheckCuda(cudaMalloc(&made, bytes > 0 ? bytes : 1), "memory for weights on their way to actors");
  data_ = static_cast<std::byte*>(made);
  cudaIpcMemHandle_t handle;
  if (cudaIpcGetMemHandle(&handle, made) == cudaSuccess) {
    ipc_.assign(reinterpret_cast<const char*>(&handle), sizeof handle);
  } else {
    cudaGetLastError();  // a container may forbid it: then it leads within this process
  }
#else
  CheckDevice(device);
#endif
}

LentMemory::~LentMemory() {
#ifdef PLUMB_CUDA
  if (device_.is_cuda() && data_ != nullptr) {
    const OnDevice here(device_);
    cudaFree(data_);
    cudaGetLastError();  // nobody to tell
  }
#endif
}

std::string LentMemory::handle() const {
  return std::string(kWord) + " " + ThisProcess() + " " + ThisBoot() + " " +
         std::to_string(device_.is_cpu() ? -1 : device_.ordinal) + " " +
         std::to_string(reinterpret_cast<uintptr_t>(data_)) + " " + std::to_string(bytes_) + " " +
         Hex(ipc_);
}

BorrowedMemory::BorrowedMemory(const std::string& handle, Device reader)
    : handle_(handle), reader_(reader) {
  const Lent lent = Parse(handle);
  device_ = lent.ordinal < 0 ? Device(Device::kCpu) : Device::Cuda(lent.ordinal);
  bytes_ = static_cast<size_t>(lent.bytes);
  if (lent.process == ThisProcess()) {
    data_ = reinterpret_cast<const std::byte*>(static_cast<uintptr_t>(lent.address));
#ifdef PLUMB_CUDA
    LetReach(device_, reader_);
#endif
    return;
  }
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kUnsupported, "memory that another process lends is not read: " + why);
  };
  if (lent.boot != ThisBoot()) refuse("it is of another machine");
  if (device_.is_cpu() || reader_.is_cpu()) refuse("it is the host's, or the reader's is");
  const std::string ipc = FromHex(lent.ipc);
  if (ipc.empty()) refuse("CUDA gave no handle of it (is IPC allowed in this container?)");
#ifdef PLUMB_CUDA
  cudaIpcMemHandle_t raw;
  if (ipc.size() != sizeof raw) refuse("its handle has " + std::to_string(ipc.size()) + " bytes");
  std::memcpy(&raw, ipc.data(), sizeof raw);
  const OnDevice here(reader_);
  void* mapped = nullptr;
  const cudaError_t error = cudaIpcOpenMemHandle(&mapped, raw, cudaIpcMemLazyEnablePeerAccess);
  if (error != cudaSuccess) {
    cudaGetLastError();
    refuse(std::string("CUDA says ") + cudaGetErrorString(error));
  }
  data_ = static_cast<const std::byte*>(mapped);
  mapped_ = true;
#else
  refuse("this build has no CUDA");
#endif
}

BorrowedMemory::~BorrowedMemory() {
#ifdef PLUMB_CUDA
  if (mapped_) {
    const OnDevice here(reader_);
    cudaIpcCloseMemHandle(const_cast<std::byte*>(data_));
    cudaGetLastError();  // nobody to tell
  }
#endif
}

void BorrowedMemory::CopyTo(const Stream& stream, void* to, size_t at, size_t bytes) const {
  PLUMB_CHECK(at + bytes <= bytes_, "a copy within what is lent");
#ifdef PLUMB_CUDA
  if (!mapped_ && device_.is_cuda() && stream.device().is_cuda() && device_ != stream.device()) {
    CheckCuda(cudaMemcpyPeerAsync(to, stream.device().ordinal, data_ + at, device_.ordinal, bytes,
                                  static_cast<cudaStream_t>(stream.handle())),
              "a copy between two GPUs");
    return;
  }
  if (stream.device().is_cpu() && device_.is_cuda()) {
    const OwnedStream own(device_);
    CopyAndWait(own, to, data_ + at, bytes);
    return;
  }
#endif
  Copy(stream, to, data_ + at, bytes);
}

}  // namespace plumb::kernels
