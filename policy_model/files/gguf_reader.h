// A GGUF file's keys and tensors, bounds-checked.
//
// Thread safety: const after Open. Ownership: the reader owns the mapping; views stay valid as long
// as it lives.
// Errors: kCorruption with the file and the byte offset; kUnsupported for another version or byte
// order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/file.h"

namespace plumb::policy_model {

// Values of the file format.
enum class GgufType : uint32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ8_0 = 8, kBF16 = 30 };

struct GgufTensor {
  GgufType type = GgufType::kF32;
  // row-major: the last dimension is contiguous (the file lists them the other way round)
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

// One value; arrays hold one of the lists.
struct GgufValue {
  std::optional<int64_t> integer;  // of every integer type and bool
  std::optional<double> number;    // of floats
  std::optional<std::string> text;
  std::vector<std::string> texts;
  std::vector<int64_t> integers;
  bool is_list = false;
};

class GgufReader {
 public:
  static std::unique_ptr<GgufReader> Open(const std::string& path);

  const std::map<std::string, GgufTensor>& tensors() const { return tensors_; }
  const std::string& path() const { return file_->path(); }
  bool Has(const std::string& key) const { return values_.count(key) != 0; }
  // kCorruption when the key is missing (without `otherwise`) or of another type.
  int64_t Integer(const std::string& key, std::optional<int64_t> otherwise = std::nullopt) const;
  double Number(const std::string& key, std::optional<double> otherwise = std::nullopt) const;
  std::string Text(const std::string& key,
                   std::optional<std::string> otherwise = std::nullopt) const;
  const std::vector<std::string>& Texts(const std::string& key) const;
  const std::vector<int64_t>& Integers(const std::string& key) const;

 private:
  explicit GgufReader(std::unique_ptr<MappedFile> file) : file_(std::move(file)) {}
  void Read();
  const GgufValue& Value(const std::string& key) const;

  std::unique_ptr<MappedFile> file_;
  std::map<std::string, GgufValue> values_;
  std::map<std::string, GgufTensor> tensors_;
};

// Elements and bytes of a block of `type`. kUnsupported naming a type that is not read here.
struct GgufBlock {
  int64_t elements, bytes;
};
GgufBlock BlockOf(GgufType type, const std::string& where);

// Dequantises whole blocks: out.size() elements.
void Dequantize(GgufType type, std::span<const std::byte> bytes, std::span<float> out);

}  // namespace plumb::policy_model
