// A GGUF file's keys and tensors, bounds-checked; a model in several files (split.count) as one.
//
// Thread safety: const after Open. Ownership: the reader owns the mappings; views and spans stay
// valid as long as it lives. Lists are checked when the file is opened and read out when they are
// asked for, so that a file costs little more memory than its keys.
// Errors: kCorruption with the file and the byte offset; kUnsupported for another version or byte
// order or an element type that is not read; kNotFound for a part of a split model.
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
enum class GgufType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kBF16 = 30
};

struct GgufTensor {
  GgufType type = GgufType::kF32;
  // row-major: the last dimension is contiguous (the file lists them the other way round)
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

// One value: a number or a text, or where in the file a list lies.
struct GgufValue {
  std::optional<int64_t> integer;  // of every integer type and bool; none beyond 63 bits
  std::optional<double> number;    // of floats, and of integers beyond 63 bits
  std::optional<std::string_view> text;
  bool is_list = false;
  uint32_t element = 0;              // the file's type of a list's values
  uint64_t count = 0;                // of them
  std::span<const std::byte> bytes;  // they begin here
};

class GgufReader {
 public:
  // Any file of a split model opens the whole of it: the others lie beside it, NAME-00001-of-00003
  // and so on.
  static std::unique_ptr<GgufReader> Open(const std::string& path);

  const std::map<std::string, GgufTensor>& tensors() const { return tensors_; }
  // The file with the keys: the first of a split model.
  const std::string& path() const { return files_.front()->path(); }
  bool Has(const std::string& key) const { return values_.count(key) != 0; }
  // kCorruption when the key is missing (without `otherwise`) or of another type.
  int64_t Integer(const std::string& key, std::optional<int64_t> otherwise = std::nullopt) const;
  double Number(const std::string& key, std::optional<double> otherwise = std::nullopt) const;
  std::string Text(const std::string& key,
                   std::optional<std::string> otherwise = std::nullopt) const;
  std::vector<std::string_view> Texts(const std::string& key) const;
  std::vector<int64_t> Integers(const std::string& key) const;  // also of bools
  std::vector<double> Numbers(const std::string& key) const;    // of floats
  // The caller has read these bytes of a tensor: their pages need not stay in memory.
  void Release(std::span<const std::byte> bytes) const;
  bool IsList(const std::string& key) const { return Has(key) && Value(key).is_list; }

 private:
  GgufReader() = default;
  using Values = std::map<std::string, GgufValue>;
  // Adds the tensors of a file and returns its keys.
  Values Read(const MappedFile& file);
  void ReadOtherParts(const std::string& path);
  const GgufValue& Value(const std::string& key) const;
  const GgufValue& List(const std::string& key, const char* what) const;

  std::vector<std::unique_ptr<MappedFile>> files_;
  Values values_;
  std::map<std::string, GgufTensor> tensors_;
};

// Elements and bytes of a block of `type`. kUnsupported naming a type that is not read here.
struct GgufBlock {
  int64_t elements, bytes;
};
GgufBlock BlockOf(GgufType type, const std::string& where);

// Dequantises whole blocks: out.size() elements, the same bits as the Python package `gguf` gives.
void Dequantize(GgufType type, std::span<const std::byte> bytes, std::span<float> out);

}  // namespace plumb::policy_model
