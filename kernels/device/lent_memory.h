// Memory of a device that other roles of this machine copy from, without a way through the host.
//
// Purpose: whoever has something lends it by a handle, a text; whoever gets the text borrows it.
// Within one process that is the address, and a copy between two GPUs goes directly where they
// reach each other (NVLink, PCIe). Between processes it is a handle of CUDA IPC, on the same GPU or
// on another. Handles of another boot of a machine, or of another machine, are refused. What is
// lent may change while it is read: who lends and who borrows agree on that by other means, and
// digests tell. Thread safety: none; const methods may be called at once. Ownership: LentMemory
// owns; it outlives copies within its process. BorrowedMemory owns its view of what another process
// has. Errors: kUnsupported for a handle that leads nowhere from here, with why; kCorruption for a
// text that is none; kUnavailable where memory ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/device/device_memory.h"
#include "kernels/device/stream.h"

namespace plumb::kernels {

class LentMemory {
 public:
  LentMemory(Device device, size_t bytes);
  ~LentMemory();
  LentMemory(const LentMemory&) = delete;
  LentMemory& operator=(const LentMemory&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  // Leads from another process, too; false: from this one alone.
  bool leads_out() const { return !ipc_.empty(); }
  std::string handle() const;

 private:
  const Device device_;
  const size_t bytes_;
  std::byte* data_ = nullptr;
  HostMemory host_;
  std::string ipc_;  // cudaIpcMemHandle_t
};

class BorrowedMemory {
 public:
  // `reader`: on which device the copies will be.
  BorrowedMemory(const std::string& handle, Device reader);
  ~BorrowedMemory();
  BorrowedMemory(const BorrowedMemory&) = delete;
  BorrowedMemory& operator=(const BorrowedMemory&) = delete;

  const std::string& handle() const { return handle_; }
  size_t bytes() const { return bytes_; }
  // Enqueues a copy of [at, at + bytes) to memory of the stream's device, or of the host.
  void CopyTo(const Stream& stream, void* to, size_t at, size_t bytes) const;

 private:
  const std::string handle_;
  Device device_, reader_;
  size_t bytes_ = 0;
  const std::byte* data_ = nullptr;
  bool mapped_ = false;
};

// Whether copies from one GPU to the other go directly. The same device: true.
bool Reaches(Device from, Device to);

}  // namespace plumb::kernels
