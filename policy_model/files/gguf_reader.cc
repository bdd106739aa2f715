#include "policy_model/files/gguf_reader.h"

#include <algorithm>
#include <cstring>

#include "common/base/error.h"

namespace plumb::policy_model {
namespace {

constexpr uint32_t kMagic = 0x46554747;     // "GGUF"
constexpr uint64_t kMaxEntries = 1 << 16;   // keys, and tensors: models have hundreds of either
constexpr uint64_t kMaxElements = 1 << 22;  // of a list; the longest are vocabularies
constexpr uint64_t kMaxText = uint64_t{16} << 20;

// Types of values in the file.
enum ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kFloat,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kDouble
};

class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}
  uint64_t at() const { return at_; }

  [[noreturn]] void Corrupt(const std::string& what) const {
    throw Error(ErrorCode::kCorruption, what + " at byte " + std::to_string(at_), path_);
  }
  template <class T>
  T Get() {
    if (bytes_.size() - at_ < sizeof(T)) Corrupt("the file ends");
    T v;
    std::memcpy(&v, bytes_.data() + at_, sizeof v);
    at_ += sizeof v;
    return v;
  }
  std::string Text() {
    const auto size = Get<uint64_t>();
    if (size > kMaxText || size > bytes_.size() - at_)
      Corrupt("a text of " + std::to_string(size) + " bytes does not fit: truncated or damaged");
    std::string out(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
    at_ += size;
    return out;
  }
  // An integer of any width or a bool; nullopt for other types.
  std::optional<int64_t> Integer(uint32_t type) {
    switch (type) {
      case kU8: return Get<uint8_t>();
      case kI8: return Get<int8_t>();
      case kU16: return Get<uint16_t>();
      case kI16: return Get<int16_t>();
      case kU32: return Get<uint32_t>();
      case kI32: return Get<int32_t>();
      case kBool: return Get<uint8_t>() != 0;
      case kU64: {
        const auto v = Get<uint64_t>();
        if (v > static_cast<uint64_t>(INT64_MAX)) Corrupt("a number beyond 63 bits");
        return static_cast<int64_t>(v);
      }
      case kI64: return Get<int64_t>();
      default: return std::nullopt;
    }
  }
  GgufValue Value() {
    const auto type = Get<uint32_t>();
    GgufValue v;
    if (type != kArray) {
      Scalar(type, v);
      return v;
    }
    v.is_list = true;
    const auto element = Get<uint32_t>();
    const auto count = Get<uint64_t>();
    if (element == kArray) Corrupt("an array of arrays");
    const uint64_t least = element == kString ? sizeof(uint64_t) : 1;  // bytes of a value
    if (count > kMaxElements || count > (bytes_.size() - at_) / least)
      Corrupt("an array of " + std::to_string(count) + " values");
    if (element == kString) v.texts.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      GgufValue one;
      Scalar(element, one);
      if (one.text) v.texts.push_back(std::move(*one.text));
      // lists of floats (scores) are not needed here
      if (one.integer) v.integers.push_back(*one.integer);
    }
    return v;
  }

 private:
  void Scalar(uint32_t type, GgufValue& v) {
    if (type == kString) v.text = Text();
    else if (type == kFloat) v.number = Get<float>();
    else if (type == kDouble) v.number = Get<double>();
    else if (!(v.integer = Integer(type)))
      Corrupt("a value of unknown type " + std::to_string(type));
  }

  std::span<const std::byte> bytes_;
  const std::string& path_;
  uint64_t at_ = 0;
};

}  // namespace

std::unique_ptr<GgufReader> GgufReader::Open(const std::string& path) {
  std::unique_ptr<GgufReader> reader(new GgufReader(MappedFile::Open(path)));
  reader->Read();
  return reader;
}

void GgufReader::Read() {
  const auto bytes = file_->bytes();
  Cursor in(bytes, path());
  if (in.Get<uint32_t>() != kMagic)
    throw Error(ErrorCode::kCorruption, "is not a GGUF file", path());
  const auto version = in.Get<uint32_t>();
  if (version != 2 && version != 3) {
    throw Error(
        ErrorCode::kUnsupported,
        "GGUF version " + std::to_string(version) + " is not read here: 2 or 3 (little-endian)",
        path());
  }
  const auto tensor_count = in.Get<uint64_t>(), value_count = in.Get<uint64_t>();
  if (tensor_count > kMaxEntries || value_count > kMaxEntries)
    in.Corrupt("more than " + std::to_string(kMaxEntries) + " keys or tensors");
  for (uint64_t i = 0; i < value_count; ++i) {
    std::string key = in.Text();
    if (!values_.emplace(key, in.Value()).second)
      in.Corrupt("the key '" + key + "' is there twice");
  }
  struct Placed {
    uint64_t begin, size;
    GgufTensor* tensor;
  };
  std::vector<Placed> placed;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    std::string name = in.Text();
    GgufTensor t;
    const auto dimensions = in.Get<uint32_t>();
    if (dimensions == 0 || dimensions > 4)
      in.Corrupt("tensor " + name + " has " + std::to_string(dimensions) + " dimensions");
    uint64_t elements = 1;
    for (uint32_t d = 0; d < dimensions; ++d) {
      const auto n = in.Get<uint64_t>();
      if (n == 0 || n > (uint64_t{1} << 40))
        in.Corrupt("tensor " + name + " has a dimension of " + std::to_string(n));
      if (__builtin_mul_overflow(elements, n, &elements))
        in.Corrupt("the shape of tensor " + name + " overflows");
      t.shape.insert(t.shape.begin(), static_cast<int64_t>(n));
    }
    t.type = static_cast<GgufType>(in.Get<uint32_t>());
    const GgufBlock block = BlockOf(t.type, path() + ": tensor " + name);
    if (t.shape.back() % block.elements != 0)
      in.Corrupt("tensor " + name + " has rows that are no whole blocks");
    uint64_t size = 0;
    if (__builtin_mul_overflow(elements / static_cast<uint64_t>(block.elements),
                               static_cast<uint64_t>(block.bytes), &size)) {
      in.Corrupt("the size of tensor " + name + " overflows");
    }
    const auto offset = in.Get<uint64_t>();
    const auto [it, is_new] = tensors_.emplace(name, std::move(t));
    if (!is_new) in.Corrupt("tensor " + name + " is there twice");
    placed.push_back({offset, size, &it->second});
  }
  const int64_t alignment = Integer("general.alignment", 32);
  if (alignment < 8 || alignment > 65536 || (alignment & (alignment - 1)) != 0)
    in.Corrupt("general.alignment is no power of two");
  const auto step = static_cast<uint64_t>(alignment);
  const uint64_t base = (in.at() + step - 1) / step * step;
  std::sort(placed.begin(), placed.end(),
            [](const Placed& a, const Placed& b) { return a.begin < b.begin; });
  uint64_t end = 0;
  for (const Placed& p : placed) {
    if (p.begin % step != 0 || p.begin < end) in.Corrupt("tensors overlap or are not aligned");
    uint64_t in_file = 0;
    if (__builtin_add_overflow(p.begin, p.size, &end) ||
        __builtin_add_overflow(base, end, &in_file))
      in.Corrupt("an offset overflows");
    if (in_file > bytes.size()) {
      throw Error(ErrorCode::kCorruption,
                  "is truncated: a tensor ends at byte " + std::to_string(in_file) + " of " +
                      std::to_string(bytes.size()),
                  path());
    }
    p.tensor->bytes = bytes.subspan(base + p.begin, p.size);
  }
}

const GgufValue& GgufReader::Value(const std::string& key) const {
  const auto it = values_.find(key);
  if (it == values_.end()) throw Error(ErrorCode::kCorruption, "has no key '" + key + "'", path());
  return it->second;
}

int64_t GgufReader::Integer(const std::string& key, std::optional<int64_t> otherwise) const {
  if (otherwise && !Has(key)) return *otherwise;
  const GgufValue& v = Value(key);
  if (!v.integer)
    throw Error(ErrorCode::kCorruption, "'" + key + "' is not a whole number", path());
  return *v.integer;
}

double GgufReader::Number(const std::string& key, std::optional<double> otherwise) const {
  if (otherwise && !Has(key)) return *otherwise;
  const GgufValue& v = Value(key);
  if (!v.number) throw Error(ErrorCode::kCorruption, "'" + key + "' is not a number", path());
  return *v.number;
}

std::string GgufReader::Text(const std::string& key, std::optional<std::string> otherwise) const {
  if (otherwise && !Has(key)) return *otherwise;
  const GgufValue& v = Value(key);
  if (!v.text) throw Error(ErrorCode::kCorruption, "'" + key + "' is not a text", path());
  return *v.text;
}

const std::vector<std::string>& GgufReader::Texts(const std::string& key) const {
  const GgufValue& v = Value(key);
  if (!v.is_list || !v.integers.empty())
    throw Error(ErrorCode::kCorruption, "'" + key + "' is not a list of texts", path());
  return v.texts;
}

const std::vector<int64_t>& GgufReader::Integers(const std::string& key) const {
  const GgufValue& v = Value(key);
  if (!v.is_list || !v.texts.empty())
    throw Error(ErrorCode::kCorruption, "'" + key + "' is not a list of whole numbers", path());
  return v.integers;
}

}  // namespace plumb::policy_model
