#include "policy_model/files/gguf_reader.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "common/base/error.h"
#include "policy_model/files/release_pages.h"

namespace plumb::policy_model {
namespace {

constexpr uint32_t kMagic = 0x46554747;     // "GGUF"
constexpr uint64_t kMaxEntries = 1 << 16;   // keys, and tensors: models have hundreds of either
constexpr uint64_t kMaxElements = 1 << 22;  // of a list; the longest are vocabularies
constexpr uint64_t kMaxText = uint64_t{16} << 20;
constexpr uint64_t kMaxName = 4096;  // of a key or tensor
constexpr int64_t kMaxParts = 1024;  // files of a model
constexpr int kMaxDepth = 4;         // of lists within lists

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

// Bytes of a value of a fixed size; 0 for texts and lists.
uint64_t SizeOf(uint32_t type) {
  switch (type) {
    case kU8:
    case kI8:
    case kBool: return 1;
    case kU16:
    case kI16: return 2;
    case kU32:
    case kI32:
    case kFloat: return 4;
    case kU64:
    case kI64:
    case kDouble: return 8;
    default: return 0;
  }
}

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
  std::string Name() {
    const std::string_view name = Text();
    if (name.size() > kMaxName) Corrupt("a name of " + std::to_string(name.size()) + " bytes");
    return std::string(name);
  }
  std::string_view Text() {
    const auto size = Get<uint64_t>();
    if (size > kMaxText || size > bytes_.size() - at_)
      Corrupt("a text of " + std::to_string(size) + " bytes does not fit: truncated or damaged");
    const std::string_view out(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
    at_ += size;
    return out;
  }
  // An integer of any width or a bool; nullopt for other types and beyond 63 bits.
  std::optional<int64_t> Integer(uint32_t type) {
    switch (type) {
      case kU8: return Get<uint8_t>();
      case kI8: return Get<int8_t>();
      case kU16: return Get<uint16_t>();
      case kI16: return Get<int16_t>();
      case kU32: return Get<uint32_t>();
      case kI32: return Get<int32_t>();
      case kBool: return Get<uint8_t>() != 0;
      case kI64: return Get<int64_t>();
      default: return std::nullopt;
    }
  }
  // One value that is no list.
  GgufValue Scalar(uint32_t type) {
    GgufValue v;
    if (type == kString) v.text = Text();
    else if (type == kFloat) v.number = Get<float>();
    else if (type == kDouble) v.number = Get<double>();
    else if (type == kU64) {
      const auto n = Get<uint64_t>();
      if (n <= static_cast<uint64_t>(INT64_MAX)) v.integer = static_cast<int64_t>(n);
      else v.number = static_cast<double>(n);
    } else if (!(v.integer = Integer(type))) {
      Corrupt("a value of unknown type " + std::to_string(type));
    }
    return v;
  }
  GgufValue Value() {
    const auto type = Get<uint32_t>();
    if (type != kArray) return Scalar(type);
    return List(0);
  }

 private:
  GgufValue List(int depth) {
    GgufValue v;
    v.is_list = true;
    v.element = Get<uint32_t>();
    v.count = Get<uint64_t>();
    const uint64_t size = SizeOf(v.element);
    // A text is at least its length, a list its type and length.
    const uint64_t least = size > 0 ? size : v.element == kString ? 8 : 12;
    if (v.element > kDouble)
      Corrupt("a list of values of unknown type " + std::to_string(v.element));
    if (v.count > kMaxElements || v.count > (bytes_.size() - at_) / least)
      Corrupt("an array of " + std::to_string(v.count) + " values does not fit into a file of " +
              std::to_string(bytes_.size()) + " bytes: truncated or damaged");
    v.bytes = bytes_.subspan(at_);
    if (size > 0) {
      at_ += v.count * size;
    } else if (v.element == kString) {
      for (uint64_t i = 0; i < v.count; ++i) Text();
    } else {
      // Lists of lists: nothing here asks for one.
      if (depth == kMaxDepth) Corrupt("lists within lists, more than 4 deep");
      for (uint64_t i = 0; i < v.count; ++i) List(depth + 1);
    }
    return v;
  }

  std::span<const std::byte> bytes_;
  const std::string& path_;
  uint64_t at_ = 0;
};

std::string PartName(const std::string& stem, int64_t part, int64_t parts) {
  char tail[48];
  std::snprintf(tail, sizeof tail, "-%05d-of-%05d.gguf", static_cast<int>(part),
                static_cast<int>(parts));
  return stem + tail;
}

}  // namespace

std::unique_ptr<GgufReader> GgufReader::Open(const std::string& path) {
  std::unique_ptr<GgufReader> reader(new GgufReader);
  reader->files_.push_back(MappedFile::Open(path));
  reader->values_ = reader->Read(*reader->files_.back());
  if (reader->Has("split.count")) reader->ReadOtherParts(path);
  return reader;
}

void GgufReader::ReadOtherParts(const std::string& path) {
  const int64_t parts = Integer("split.count");
  if (parts <= 1) return;
  if (parts > kMaxParts)
    throw Error(ErrorCode::kCorruption,
                "says that it is one of " + std::to_string(parts) + " files", path);
  const int64_t mine = Integer("split.no");
  if (mine < 0 || mine >= parts)
    throw Error(
        ErrorCode::kCorruption,
        "'split.no' is " + std::to_string(mine) + ", of " + std::to_string(parts) + " files", path);
  const size_t tail = PartName("", 1, parts).size();
  const std::string stem = path.substr(0, path.size() - std::min(tail, path.size()));
  if (path != PartName(stem, mine + 1, parts)) {
    throw Error(ErrorCode::kNotFound,
                "is file " + std::to_string(mine + 1) + " of " + std::to_string(parts) +
                    " of a model: the others are looked for by its name, which has to end in " +
                    PartName("", mine + 1, parts),
                path);
  }
  std::vector<std::unique_ptr<MappedFile>> files(static_cast<size_t>(parts));
  const auto place = [&](int64_t part) -> auto& { return files[static_cast<size_t>(part)]; };
  place(mine) = std::move(files_.front());
  for (int64_t part = 0; part < parts; ++part) {
    if (part == mine) continue;
    const std::string name = PartName(stem, part + 1, parts);
    if (!RealFileSystem().Exists(name)) {
      throw Error(ErrorCode::kNotFound,
                  "is not there: the model is in " + std::to_string(parts) +
                      " files, which have to lie in one folder",
                  name);
    }
    place(part) = MappedFile::Open(name);
    Values values = Read(*place(part));
    const auto says = [&](const char* key, int64_t what) {
      const auto it = values.find(key);
      if (it == values.end() || it->second.integer != what)
        throw Error(ErrorCode::kCorruption,
                    "'" + std::string(key) + "' is not " + std::to_string(what) +
                        ": it belongs to another model",
                    name);
    };
    says("split.no", part);
    says("split.count", parts);
    if (part == 0) values_ = std::move(values);
  }
  files_ = std::move(files);
  const auto total = static_cast<int64_t>(tensors_.size());
  if (Integer("split.tensors.count", total) != total) {
    throw Error(ErrorCode::kCorruption,
                "'split.tensors.count' is " + std::to_string(Integer("split.tensors.count")) +
                    ", but its files have " + std::to_string(total) + " tensors",
                this->path());
  }
}

GgufReader::Values GgufReader::Read(const MappedFile& file) {
  const auto bytes = file.bytes();
  const std::string& path = file.path();
  Values values;
  Cursor in(bytes, path);
  if (in.Get<uint32_t>() != kMagic) throw Error(ErrorCode::kCorruption, "is not a GGUF file", path);
  const auto version = in.Get<uint32_t>();
  if (version != 2 && version != 3) {
    throw Error(
        ErrorCode::kUnsupported,
        "GGUF version " + std::to_string(version) + " is not read here: 2 or 3 (little-endian)",
        path);
  }
  const auto tensor_count = in.Get<uint64_t>(), value_count = in.Get<uint64_t>();
  if (tensor_count > kMaxEntries || value_count > kMaxEntries)
    in.Corrupt("more than " + std::to_string(kMaxEntries) + " keys or tensors");
  for (uint64_t i = 0; i < value_count; ++i) {
    std::string key = in.Name();
    if (!values.emplace(key, in.Value()).second) in.Corrupt("the key '" + key + "' is there twice");
  }
  struct Placed {
    uint64_t begin, size;
    GgufTensor* tensor;
  };
  std::vector<Placed> placed;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    std::string name = in.Name();
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
    const GgufBlock block = BlockOf(t.type, path + ": tensor " + name);
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
  int64_t alignment = 32;
  if (const auto it = values.find("general.alignment"); it != values.end())
    alignment = it->second.integer.value_or(0);
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
                  path);
    }
    p.tensor->bytes = bytes.subspan(base + p.begin, p.size);
  }
  return values;
}

void GgufReader::Release(std::span<const std::byte> bytes) const { ReleasePages(bytes); }

const GgufValue& GgufReader::Value(const std::string& key) const {
  const auto it = values_.find(key);
  if (it == values_.end()) throw Error(ErrorCode::kCorruption, "has no key '" + key + "'", path());
  return it->second;
}

const GgufValue& GgufReader::List(const std::string& key, const char* what) const {
  const GgufValue& v = Value(key);
  if (!v.is_list)
    throw Error(ErrorCode::kCorruption, "'" + key + "' is not a list of " + what, path());
  return v;
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
  return std::string(*v.text);
}

// Lists were checked by Read: these run over bytes that are there.
std::vector<std::string_view> GgufReader::Texts(const std::string& key) const {
  const GgufValue& v = List(key, "texts");
  if (v.element != kString && v.count > 0)
    throw Error(ErrorCode::kCorruption, "'" + key + "' is not a list of texts", path());
  Cursor in(v.bytes, path());
  std::vector<std::string_view> out(v.count);
  for (std::string_view& text : out) text = in.Text();
  return out;
}

std::vector<int64_t> GgufReader::Integers(const std::string& key) const {
  const GgufValue& v = List(key, "whole numbers");
  Cursor in(v.bytes, path());
  std::vector<int64_t> out(v.count);
  for (int64_t& n : out) {
    const bool number = SizeOf(v.element) > 0;
    const std::optional<int64_t> one = number ? in.Scalar(v.element).integer : std::nullopt;
    if (!one)
      throw Error(ErrorCode::kCorruption, "'" + key + "' is not a list of whole numbers", path());
    n = *one;
  }
  return out;
}

std::vector<double> GgufReader::Numbers(const std::string& key) const {
  const GgufValue& v = List(key, "numbers");
  if (v.element != kFloat && v.element != kDouble && v.count > 0)
    throw Error(ErrorCode::kCorruption, "'" + key + "' is not a list of numbers", path());
  Cursor in(v.bytes, path());
  std::vector<double> out(v.count);
  for (double& n : out) n = *in.Scalar(v.element).number;
  return out;
}

}  // namespace plumb::policy_model
