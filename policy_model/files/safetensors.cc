#include "policy_model/files/safetensors.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "common/base/checked_math.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json/strict_json.h"
#include "common/base/log.h"
#include "policy_model/files/release_pages.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::ordered_json;
constexpr size_t kMaxHeaderBytes = size_t{100} << 20;
// some 25,000 tensors a file, 150,000 in an index
constexpr int64_t kMaxHeaderCost = int64_t{1} << 20;
constexpr size_t kMaxDimensions = 8;

struct TypeName {
  const char* name;
  DType dtype;
};
constexpr TypeName kTypes[] = {{"F32", DType::kFloat32},
                               {"BF16", DType::kBFloat16},
                               {"F16", DType::kFloat16},
                               {"I32", DType::kInt32},
                               {"I64", DType::kInt64}};

const char* NameOf(DType dtype) {
  for (const TypeName& t : kTypes) {
    if (t.dtype == dtype) return t.name;
  }
  return "?";
}

Json ParseHeader(std::string_view text, const std::string& path) {
  Json j = ParseStrictJson(text, path, kMaxHeaderCost);
  if (!j.is_object()) throw Error(ErrorCode::kCorruption, "the header is not a JSON object", path);
  return j;
}

class Reader : public SafetensorsReader {
 public:
  const std::map<std::string, TensorView>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  void Release(const TensorView& view) const override { ReleasePages(view.bytes); }

  void Add(const std::string& path) {
    files_.push_back(MappedFile::Open(path));
    const auto bytes = files_.back()->bytes();
    const auto corrupt = [&](const std::string& what) {
      throw Error(ErrorCode::kCorruption, what, path);
    };
    if (bytes.size() < 8)
      corrupt("is too short for a safetensors file: " + std::to_string(bytes.size()) +
              " bytes; was it copied to its end? Fetch it again");
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    if (header > kMaxHeaderBytes || header > bytes.size() - 8) {
      corrupt("says its header has " + std::to_string(header) + " bytes, the file has " +
              std::to_string(bytes.size()) +
              ": truncated, or not a safetensors file; fetch it again");
    }
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, header);
    const Json j = ParseHeader(text, path);
    const auto data = bytes.subspan(8 + header);
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    for (const auto& [name, entry] : j.items()) {
      if (name == "__metadata__") {
        if (!entry.is_object()) corrupt("__metadata__ is not an object");
        for (const auto& [key, value] : entry.items()) {
          if (!value.is_string()) corrupt("__metadata__ holds something else than text");
          metadata_[key] = value.get<std::string>();
        }
        continue;
      }
      if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
          !entry.contains("data_offsets") || !entry["dtype"].is_string() ||
          !entry["shape"].is_array() || !entry["data_offsets"].is_array() ||
          entry["data_offsets"].size() != 2) {
        corrupt("tensor " + name + " has no dtype, shape or data_offsets");
      }
      TensorView view;
      bool known = false;
      const std::string type = entry["dtype"].get<std::string>();
      for (const TypeName& t : kTypes) {
        if (type == t.name) {
          view.dtype = t.dtype;
          known = true;
        }
      }
      view.packed = type == "U8";
      if (!known && !view.packed)
        throw Error(ErrorCode::kUnsupported,
                    "tensor " + name + " has the type " + type.substr(0, 100), path);
      if (entry["shape"].size() > kMaxDimensions)
        corrupt("tensor " + name + " has too many dimensions");
      uint64_t elements = 1;
      for (const Json& d : entry["shape"]) {
        if (!d.is_number_unsigned()) corrupt("tensor " + name + " has a bad shape");
        if (d.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
          corrupt("tensor " + name + " has a bad shape");
        if (__builtin_mul_overflow(elements, d.get<uint64_t>(), &elements))
          corrupt("the shape of tensor " + name + " overflows");
        view.shape.push_back(d.get<int64_t>());
      }
      for (const Json& o : entry["data_offsets"]) {
        if (!o.is_number_unsigned()) corrupt("tensor " + name + " has bad offsets");
      }
      const auto begin = entry["data_offsets"][0].get<uint64_t>(),
                 end = entry["data_offsets"][1].get<uint64_t>();
      if (begin > end || end > data.size()) {
        corrupt("tensor " + name + " ends at byte " + std::to_string(end) + " of " +
                std::to_string(data.size()) + ": the file is truncated");
      }
      uint64_t size = 0;
      const uint64_t element = view.packed ? 1 : ElementSize(view.dtype);
      if (__builtin_mul_overflow(elements, element, &size)) {
        corrupt("the shape of tensor " + name + " overflows");
      }
      if (size != end - begin) {
        corrupt("tensor " + name + " has another size than its shape says");
      }
      view.bytes = data.subspan(begin, end - begin);
      if (!tensors_.emplace(name, std::move(view)).second)
        corrupt("tensor " + name + " is in two files");
      ranges.emplace_back(begin, end);
    }
    std::sort(ranges.begin(), ranges.end());
    uint64_t at = 0;
    for (const auto& [begin, end] : ranges) {
      if (begin != at) corrupt("tensors overlap or leave a hole at byte " + std::to_string(at));
      at = end;
    }
    if (at != data.size())
      corrupt("has " + std::to_string(data.size() - at) + " bytes that no tensor owns");
  }

 private:
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// A file that appears under its name only when it is whole.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path)
      : path_(path), temporary_(path + ".tmp-" + std::to_string(getpid())) {
    fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd_ < 0) ThrowFileError(errno, "create", temporary_);
  }
  ~AtomicFile() {
    if (fd_ >= 0) close(fd_);
    if (!done_) unlink(temporary_.c_str());
  }
  void Write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) ThrowFileError(errno, "write", temporary_);
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
  }
  void Commit() {
    if (fsync(fd_) != 0) ThrowFileError(errno, "sync", temporary_);
    RealFileSystem().Rename(temporary_, path_);
    done_ = true;
    const std::string folder = std::filesystem::path(path_).parent_path().string();
    RealFileSystem().SyncDirectory(folder.empty() ? "." : folder);
  }

 private:
  std::string path_, temporary_;
  int fd_ = -1;
  bool done_ = false;
};

}  // namespace

std::unique_ptr<SafetensorsReader> SafetensorsReader::OpenFile(const std::string& path) {
  auto reader = std::make_unique<Reader>();
  reader->Add(path);
  return reader;
}

std::unique_ptr<SafetensorsReader> SafetensorsReader::OpenDirectory(const std::string& directory) {
  auto reader = std::make_unique<Reader>();
  const std::string index_path = directory + "/model.safetensors.index.json",
                    single_path = directory + "/model.safetensors";
  const bool has_index = RealFileSystem().Exists(index_path);
  if (RealFileSystem().Exists(single_path)) {
    if (has_index) {
      LogWarningOnce(
          directory +
          " has model.safetensors and an index of shards beside it: the single file is read, as " +
          "transformers does; remove the one that is out of date");
    }
    reader->Add(single_path);
    return reader;
  }
  if (!has_index) {
    throw Error(ErrorCode::kNotFound,
                "has neither model.safetensors nor model.safetensors.index.json: the weights of "
                "the model belong beside its config.json",
                directory);
  }
  const Json index =
      ParseHeader(RealFileSystem().ReadFile(index_path, kMaxHeaderBytes), index_path);
  if (!index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw Error(ErrorCode::kCorruption, "has no weight_map", index_path);
  }
  std::set<std::string> shards;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string())
      throw Error(ErrorCode::kCorruption, "tensor " + tensor + " has no file name", index_path);
    const auto name = file.get<std::string>();
    // A NUL would hide what follows it from the system's calls.
    if (name.empty() || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos || name.starts_with(".")) {
      throw Error(ErrorCode::kCorruption, "'" + name + "' is not a file of this folder",
                  index_path);
    }
    shards.insert(name);
  }
  for (const std::string& shard : shards) reader->Add(directory + "/" + shard);
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!reader->tensors().count(tensor)) {
      throw Error(ErrorCode::kCorruption, "tensor " + tensor + " is in no shard", index_path);
    }
  }
  return reader;
}

void WriteSafetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0, largest = 0;
  std::vector<uint64_t> sizes;
  for (const TensorToWrite& t : tensors) {
    uint64_t bytes = ElementSize(t.dtype);
    PLUMB_CHECK(std::all_of(t.shape.begin(), t.shape.end(), [](int64_t d) { return d >= 0; }),
                t.name);
    for (int64_t d : t.shape) bytes = CheckedMul(bytes, static_cast<uint64_t>(d));
    PLUMB_CHECK(!header.contains(t.name), "tensor names are unique: " + t.name);
    header[t.name] = {
        {"dtype", NameOf(t.dtype)}, {"shape", t.shape}, {"data_offsets", {at, at + bytes}}};
    sizes.push_back(bytes);
    at += bytes;
    largest = std::max(largest, bytes);
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // data starts aligned
  AtomicFile file(path);
  const uint64_t size = text.size();
  file.Write(std::as_bytes(std::span(&size, 1)));
  file.Write(std::as_bytes(std::span(text.data(), text.size())));
  std::vector<std::byte> buffer(largest);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto part = std::span(buffer).first(sizes[i]);
    tensors[i].fill(part);
    file.Write(part);
  }
  file.Commit();
}

}  // namespace plumb::policy_model
