#include "policy_model/memory/key_table.h"

#include <cmath>
#include <map>
#include <span>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash/sha256.h"
#include "common/base/mutex.h"
#include "policy_model/files/safetensors.h"

namespace plumb::policy_model {
namespace {

constexpr int64_t kMostRows = 1'000'000;

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string out;
  for (const int64_t n : shape) out += (out.empty() ? "[" : ", ") + std::to_string(n);
  return (out.empty() ? "[" : out) + "]";
}

// The numbers of one tensor [N, head_dim].
std::vector<float> Numbers(const SafetensorsReader& file, const char* name, int64_t head_dim,
                           const std::string& path) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::kCorruption,
                what + "; a memory table has `keys` and `values` of shape [N, " +
                    std::to_string(head_dim) + "], the model's head size",
                path);
  };
  const auto found = file.tensors().find(name);
  if (found == file.tensors().end()) fail(std::string("has no tensor `") + name + "`");
  const TensorView& view = found->second;
  if (view.shape.size() != 2 || view.shape[1] != head_dim || view.shape[0] < 1)
    fail(std::string("`") + name + "` has shape " + ShapeText(view.shape));
  if (view.shape[0] > kMostRows)
    fail(std::string("`") + name + "` has " + std::to_string(view.shape[0]) +
         " rows, more than a million");
  if (view.packed || (view.dtype != DType::kFloat32 && view.dtype != DType::kBFloat16 &&
                      view.dtype != DType::kFloat16))
    fail(std::string("`") + name + "` does not hold float32, bfloat16 or float16");
  std::vector<float> out(static_cast<size_t>(view.shape[0] * head_dim));
  ConvertToFloat(view.bytes.data(), view.dtype, out);
  for (size_t i = 0; i < out.size(); ++i) {
    if (!std::isfinite(out[i]))
      fail(std::string("`") + name + "` is not finite in row " +
           std::to_string(i / static_cast<size_t>(head_dim)));
  }
  return out;
}

struct Read {
  KeyTable table;
  KeyTableShape shape;
};

Read ReadTable(const std::string& path, int64_t head_dim) {
  if (!RealFileSystem().Exists(path)) {
    throw Error(ErrorCode::kNotFound,
                "the memory table is not there: model.memory_table names a safetensors file with "
                "`keys` and `values`",
                path);
  }
  const auto mapped = MappedFile::Open(path);
  const auto file = SafetensorsReader::OpenFile(path);
  Read out;
  out.table.keys = Numbers(*file, "keys", head_dim, path);
  out.table.values = Numbers(*file, "values", head_dim, path);
  if (out.table.keys.size() != out.table.values.size()) {
    throw Error(ErrorCode::kCorruption,
                "`keys` and `values` have different numbers of rows: a value belongs to each key",
                path);
  }
  Sha256 digest;
  digest.Update(mapped->bytes());
  out.shape = {path, static_cast<int64_t>(out.table.keys.size()) / head_dim, digest.HexDigest()};
  return out;
}

}  // namespace

KeyTableShape DescribeKeyTable(const std::string& path, int64_t head_dim) {
  return ReadTable(path, head_dim).shape;
}

std::shared_ptr<const KeyTable> KeyTableOf(const ModelShape& shape) {
  static Mutex mutex;
  static std::map<std::string, std::weak_ptr<const KeyTable>> tables;  // by digest and head size
  const KeyTableShape& wanted = shape.table;
  PLUMB_CHECK(wanted.there(), "a model with a memory table");
  const MutexLock lock(mutex);
  auto& known = tables[wanted.digest + "/" + std::to_string(shape.head_dim)];
  if (auto table = known.lock()) return table;
  Read read = ReadTable(wanted.path, shape.head_dim);
  if (read.shape != wanted) {
    throw Error(ErrorCode::kConflict,
                "is not the memory table that the model was trained with: its SHA-256 is " +
                    read.shape.digest + ", config.json says " + wanted.digest +
                    "; bring that file back, for the model does not work with another",
                wanted.path);
  }
  auto table = std::make_shared<const KeyTable>(std::move(read.table));
  known = table;
  return table;
}

std::shared_ptr<const FlatBuffer> KeyTableOn(const std::shared_ptr<const KeyTable>& table,
                                             const Stream& stream) {
  struct Copy {
    std::weak_ptr<const KeyTable> of;
    Device device;
    std::weak_ptr<const FlatBuffer> there;
  };
  static Mutex mutex;
  static std::vector<Copy> copies;
  const MutexLock lock(mutex);
  std::erase_if(copies, [](const Copy& c) { return c.there.expired(); });
  for (const Copy& c : copies) {
    if (c.device != stream.device() || c.of.lock() != table) continue;
    if (auto there = c.there.lock()) return there;
  }
  const auto n = static_cast<int64_t>(table->keys.size());
  auto there = std::make_shared<FlatBuffer>(stream, DType::kFloat32, 2 * n);
  there->CopyFromHost(std::as_bytes(std::span(table->keys)));
  there->CopyFromHost(std::as_bytes(std::span(table->values)), n);
  copies.push_back({table, stream.device(), there});
  return there;
}

}  // namespace plumb::policy_model
