// Bytes of a device: copies and zeros on a stream, memory of the host that a device can read
// meanwhile, and how much is in use.
//
// Copy and Zero are enqueued and return at once (on the CPU: when done); host memory they read or
// write stays as it is until the stream has got there (Stream::Synchronize). From MakeHostMemory
// such a copy does not wait; from other memory of the host it may, and within a graph it cannot be
// captured.
// Thread safety: that of the stream. Errors: kIo for what CUDA refuses, kUnavailable where memory
// ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/device/stream.h"

namespace plumb::kernels {

// Between host and device or within either.
void Copy(const Stream& stream, void* to, const void* from, size_t bytes);
void Zero(const Stream& stream, void* data, size_t bytes);
// Waits for the stream.
void CopyAndWait(const Stream& stream, void* to, const void* from, size_t bytes);

// Zeroed; page-locked where the stream is a GPU's.
using HostMemory = std::unique_ptr<std::byte, void (*)(void*)>;
HostMemory MakeHostMemory(const Stream& stream, size_t bytes);

// Of the GPU: by this process' allocator, which keeps what it once took, and by whoever shares the
// card. 0 without CUDA or a device that answers.
int64_t DeviceBytesInUse(Device device);
// What is left of it for anybody; 0 likewise.
int64_t DeviceBytesFree(Device device);

}  // namespace plumb::kernels
