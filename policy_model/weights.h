// Flat buffers on a device and the weights in one of them.
//
// Thread safety: readers may share a const object; writers need it alone. Ownership: a FlatBuffer owns its memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/dtype.h"
#include "common/trajectory.h"
#include "kernels/launch.h"
#include "policy_model/tensor_table.h"

namespace plumb::policy_model {

// `elements` of `dtype` on `device`, 4 KiB aligned, zeroed.
class FlatBuffer {
 public:
  FlatBuffer() = default;
  FlatBuffer(Device device, DType dtype, int64_t elements);
  ~FlatBuffer();
  FlatBuffer(FlatBuffer&& other) noexcept;
  FlatBuffer& operator=(FlatBuffer&& other) noexcept;

  Device device() const { return device_; }
  DType dtype() const { return dtype_; }
  int64_t elements() const { return elements_; }
  size_t bytes() const { return static_cast<size_t>(elements_) * ElementSize(dtype_); }
  void* data() { return data_; }
  const void* data() const { return data_; }
  float* f32() { return static_cast<float*>(data_); }  // REQUIRES: dtype() == kFloat32
  const float* f32() const { return static_cast<const float*>(data_); }
  // Address of element `offset`.
  void* at(int64_t offset) { return static_cast<std::byte*>(data_) + static_cast<size_t>(offset) * ElementSize(dtype_); }
  const void* at(int64_t offset) const {
    return static_cast<const std::byte*>(data_) + static_cast<size_t>(offset) * ElementSize(dtype_);
  }
  void Zero();
  // To and from host memory of exactly bytes(); waits for the device.
  void CopyToHost(std::span<std::byte> out) const;
  void CopyFromHost(std::span<const std::byte> in);
  // The first in.size() bytes only; the rest stays.
  void CopyPrefixFromHost(std::span<const std::byte> in);
  void CopyPrefixToHost(std::span<std::byte> out) const;  // the first out.size() bytes

 private:
  Device device_ = Device::kCpu;
  DType dtype_ = DType::kFloat32;
  int64_t elements_ = 0;
  void* data_ = nullptr;
  std::shared_ptr<void> owner_;
};

// Converts n elements between float and another type, in host memory.
void ConvertFloat(std::span<const float> in, DType dtype, void* out);
void ConvertToFloat(const void* in, DType dtype, std::span<float> out);

class Weights {
 public:
  Weights(const ModelShape& shape, Device device, DType dtype);

  const TensorTable& table() const { return table_; }
  const ModelShape& shape() const { return table_.shape(); }
  FlatBuffer& flat() { return flat_; }
  const FlatBuffer& flat() const { return flat_; }

  // Normal(0, init_std), residual projections scaled by (2L)^-1/2, norms 1, biases 0. Same bits for the same seed.
  void Initialise(uint64_t seed, double init_std);
  // From an HF directory's safetensors; every tensor used, none left over (kCorruption names them). `master`, when not
  // nullptr, is a float buffer of flat_elements() that receives the unrounded values.
  void Load(const std::string& directory, FlatBuffer* master = nullptr);
  // model.safetensors under HF names from this buffer in its dtype (config.json and tokenizer files are the caller's).
  void Save(const std::string& directory) const;
  // Tree hash over the flat bytes (common/digest.h).
  Digest ComputeDigest() const;

 private:
  TensorTable table_;
  FlatBuffer flat_;
};

// A model of the same trunk with a scalar head in place of the LM head: a reward model or critic that starts from a
// policy. Trunk: the policy's bits. Head: Normal(0, 1 / sqrt(H + 1)) keyed by `seed`, the usual start of such a head.
Weights ScalarHeadFrom(const Weights& policy, uint64_t seed);
// A scalar head alone, for a trunk that it shares with `policy` (Transformer::HeadValues): a model without layers, of which
// only the head is used. Drawn like the head above.
Weights ValueHeadFor(const Weights& policy, uint64_t seed);

// Reads ModelShape of a directory: config.json.  Writes a complete HF model folder: config, weights; copies
// tokenizer.json, tokenizer_config.json and chat_template.jinja from `tokenizer_source` when it is not empty.
void SaveModelDirectory(const Weights& weights, const std::string& directory, const std::string& tokenizer_source);

}  // namespace plumb::policy_model
