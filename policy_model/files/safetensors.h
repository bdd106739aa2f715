// Weights in files: safetensors directories (one file or an index) in, one file out.
//
// Thread safety: a reader is const after Open; a writer belongs to one thread. Ownership: the
// reader owns the mappings, spans stay valid as long as it lives. Errors: kCorruption with file and
// tensor; headers are bounds-checked, contiguous, no holes, overlaps or duplicate keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/dtype.h"

namespace plumb::policy_model {

struct TensorView {
  DType dtype = DType::kFloat32;
  bool packed = false;  // U8: bytes that hold numbers in fewer bits; `dtype` says nothing
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // row-major, little-endian
};

class SafetensorsReader {
 public:
  // model.safetensors, or every shard of model.safetensors.index.json in `directory`. Where both
  // are there the single file is read, as transformers does, with a warning: the other may be
  // stale.
  static std::unique_ptr<SafetensorsReader> OpenDirectory(const std::string& directory);
  static std::unique_ptr<SafetensorsReader> OpenFile(const std::string& path);
  virtual ~SafetensorsReader() = default;
  virtual const std::map<std::string, TensorView>& tensors() const = 0;
  virtual const std::map<std::string, std::string>& metadata() const = 0;
  // The caller has read `view`: its pages need not stay in memory. Reading it again is allowed and
  // reads the file again.
  virtual void Release(const TensorView& view) const = 0;
};

// One tensor to write: `fill` is called once, in order, with the destination of exactly its bytes.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  std::function<void(std::span<std::byte>)> fill;
};

// Atomic (temporary file, fsync, rename, fsync of the folder). Tensors are written one after the
// other: memory stays within the largest of them.
void WriteSafetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                      const std::map<std::string, std::string>& metadata);

}  // namespace plumb::policy_model
