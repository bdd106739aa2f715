#include "policy_model/weights.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "common/digest.h"
#include "common/error.h"
#include "common/file.h"
#include "common/rng.h"
#include "policy_model/files/safetensors.h"

namespace plumb::policy_model {
namespace {

constexpr uint64_t kInitStream = 0x1417;
constexpr uint64_t kScoreStream = 0x5c03;

at::ScalarType TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return at::kFloat;
    case DType::kBFloat16: return at::kBFloat16;
    case DType::kFloat16: return at::kHalf;
    case DType::kInt32: return at::kInt;
    case DType::kInt64: return at::kLong;
  }
  return at::kFloat;
}

at::Tensor AsTensor(const void* data, int64_t n, Device device, DType dtype) {
  return at::from_blob(const_cast<void*>(data), {n},
                       at::TensorOptions().dtype(TypeOf(dtype)).device(device == Device::kCuda ? at::kCUDA : at::kCPU));
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

std::vector<int64_t> PartShape(const TensorEntry& entry, const HfPart& part) {
  std::vector<int64_t> shape = entry.shape;
  shape[0] = part.row_end - part.row_begin;
  return shape;
}

}  // namespace

FlatBuffer::FlatBuffer(Device device, DType dtype, int64_t elements) : device_(device), dtype_(dtype), elements_(elements) {
  if (device == Device::kCuda && !kernels::CudaAvailable()) {
    throw Error(ErrorCode::kUnsupported, "this build has no CUDA or no GPU answers: use the CPU, and see plumb doctor");
  }
  const c10::InferenceMode guard;
  const auto options = at::TensorOptions().dtype(at::kByte).device(device == Device::kCuda ? at::kCUDA : at::kCPU);
  // 4 KiB alignment: over-allocate and shift.
  auto tensor = std::make_shared<at::Tensor>(at::zeros({static_cast<int64_t>(bytes()) + 4096}, options));
  const auto address = reinterpret_cast<uintptr_t>(tensor->data_ptr());
  data_ = reinterpret_cast<void*>((address + 4095) / 4096 * 4096);
  owner_ = std::move(tensor);
}

FlatBuffer::~FlatBuffer() = default;

FlatBuffer::FlatBuffer(FlatBuffer&& other) noexcept { *this = std::move(other); }

FlatBuffer& FlatBuffer::operator=(FlatBuffer&& other) noexcept {
  device_ = other.device_;
  dtype_ = other.dtype_;
  elements_ = std::exchange(other.elements_, 0);
  data_ = std::exchange(other.data_, nullptr);
  owner_ = std::move(other.owner_);
  return *this;
}

void FlatBuffer::Zero() {
  if (device_ == Device::kCpu) {
    std::memset(data_, 0, bytes());
    return;
  }
  const c10::InferenceMode guard;
  AsTensor(data_, elements_, device_, dtype_).zero_();
}

void FlatBuffer::CopyToHost(std::span<std::byte> out) const {
  PLUMB_CHECK(out.size() == bytes());
  if (device_ == Device::kCpu) {
    std::memcpy(out.data(), data_, bytes());
    return;
  }
  const c10::InferenceMode guard;
  AsTensor(out.data(), elements_, Device::kCpu, dtype_).copy_(AsTensor(data_, elements_, device_, dtype_));
}

void FlatBuffer::CopyFromHost(std::span<const std::byte> in) {
  PLUMB_CHECK(in.size() == bytes());
  if (device_ == Device::kCpu) {
    std::memcpy(data_, in.data(), bytes());
    return;
  }
  const c10::InferenceMode guard;
  AsTensor(data_, elements_, device_, dtype_).copy_(AsTensor(in.data(), elements_, Device::kCpu, dtype_));
}

void FlatBuffer::CopyPrefixFromHost(std::span<const std::byte> in) {
  PLUMB_CHECK(in.size() <= bytes());
  if (in.empty()) return;
  if (device_ == Device::kCpu) {
    std::memcpy(data_, in.data(), in.size());
    return;
  }
  const c10::InferenceMode guard;
  const auto n = static_cast<int64_t>(in.size());
  const auto options = at::TensorOptions().dtype(at::kByte);
  at::from_blob(data_, {n}, options.device(at::kCUDA))
      .copy_(at::from_blob(const_cast<std::byte*>(in.data()), {n}, options.device(at::kCPU)));
}

void FlatBuffer::CopyPrefixToHost(std::span<std::byte> out) const {
  PLUMB_CHECK(out.size() <= bytes());
  if (out.empty()) return;
  if (device_ == Device::kCpu) {
    std::memcpy(out.data(), data_, out.size());
    return;
  }
  const c10::InferenceMode guard;
  const auto n = static_cast<int64_t>(out.size());
  const auto options = at::TensorOptions().dtype(at::kByte);
  at::from_blob(out.data(), {n}, options.device(at::kCPU))
      .copy_(at::from_blob(data_, {n}, options.device(at::kCUDA)));
}

void ConvertFloat(std::span<const float> in, DType dtype, void* out) {
  const c10::InferenceMode guard;
  const auto n = static_cast<int64_t>(in.size());
  AsTensor(out, n, Device::kCpu, dtype).copy_(AsTensor(in.data(), n, Device::kCpu, DType::kFloat32));
}

void ConvertToFloat(const void* in, DType dtype, std::span<float> out) {
  const c10::InferenceMode guard;
  const auto n = static_cast<int64_t>(out.size());
  AsTensor(out.data(), n, Device::kCpu, DType::kFloat32).copy_(AsTensor(in, n, Device::kCpu, dtype));
}

Weights::Weights(const ModelShape& shape, Device device, DType dtype)
    : table_(shape), flat_(device, dtype, table_.flat_elements()) {}

void Weights::Initialise(uint64_t seed, double init_std) {
  std::vector<float> values(static_cast<size_t>(flat_.elements()), 0.0f);
  const double residual = init_std / std::sqrt(2.0 * static_cast<double>(shape().layers));
  uint64_t stream = kInitStream << 32;
  for (const TensorEntry& e : table_.entries()) {
    RandomStream random(seed, stream++);
    float* out = values.data() + e.offset;
    const bool norm = e.name.find("norm") != std::string::npos;
    const bool bias = e.name.find("bias") != std::string::npos;
    const bool into_residual = e.name.ends_with(".o") || e.name.ends_with(".down");
    const auto std = static_cast<float>(into_residual ? residual : init_std);
    for (int64_t i = 0; i < e.elements; ++i) out[i] = norm ? 1.0f : bias ? 0.0f : std * random.NextNormal();
  }
  std::vector<std::byte> host(flat_.bytes());
  ConvertFloat(values, flat_.dtype(), host.data());
  flat_.CopyFromHost(host);
}

void Weights::Load(const std::string& directory, FlatBuffer* master) {
  const auto reader = SafetensorsReader::OpenDirectory(directory);
  std::vector<float> values(static_cast<size_t>(flat_.elements()), 0.0f);
  std::set<std::string> used;
  std::string missing;
  for (const TensorEntry& e : table_.entries()) {
    const int64_t row = e.elements / e.shape[0];
    for (const HfPart& part : e.parts) {
      auto found = reader->tensors().find(part.name);
      // Of a tied pair either name may be the one that is there.
      if (found == reader->tensors().end() && shape().tied &&
          part.name == "model.embed_tokens.weight") {
        found = reader->tensors().find("lm_head.weight");
      }
      if (found == reader->tensors().end()) {
        missing += " " + part.name;
        continue;
      }
      const std::vector<int64_t> want = PartShape(e, part);
      if (found->second.shape != want) {
        throw Error(ErrorCode::kCorruption, "tensor " + part.name + " has shape " + ShapeText(found->second.shape) +
                                                ", config.json asks for " + ShapeText(want), directory);
      }
      if (found->second.dtype == DType::kInt32 || found->second.dtype == DType::kInt64) {
        throw Error(ErrorCode::kUnsupported, "tensor " + part.name + " holds integers", directory);
      }
      const int64_t n = (part.row_end - part.row_begin) * row;
      ConvertToFloat(found->second.bytes.data(), found->second.dtype,
                     std::span(values).subspan(static_cast<size_t>(e.offset + part.row_begin * row), static_cast<size_t>(n)));
      used.insert(part.name);
    }
  }
  if (missing == " lm_head.weight") {
    missing +=
        " (where the head is the embedding, config.json has to say \"tie_word_embeddings\": true)";
  }
  if (!missing.empty()) throw Error(ErrorCode::kCorruption, "tensors are missing:" + missing, directory);
  std::string left;
  for (const auto& [name, view] : reader->tensors()) {
    // A tied model may carry its head twice (ReadModelConfig unties one that is another); older
    // exports carry rotary tables that follow from the config.
    if (used.count(name) || (shape().tied && name == "lm_head.weight") || name.ends_with("rotary_emb.inv_freq")) continue;
    left += " " + name;
  }
  if (!left.empty()) throw Error(ErrorCode::kCorruption, "tensors that this model does not have:" + left, directory);
  std::vector<std::byte> host(flat_.bytes());
  ConvertFloat(values, flat_.dtype(), host.data());
  flat_.CopyFromHost(host);
  if (master) master->CopyFromHost(std::as_bytes(std::span<const float>(values)));
}

void Weights::Save(const std::string& directory) const {
  std::vector<std::byte> host(flat_.bytes());
  flat_.CopyToHost(host);
  const size_t size = ElementSize(flat_.dtype());
  std::vector<TensorToWrite> tensors;
  for (const TensorEntry& e : table_.entries()) {
    const int64_t row = e.elements / e.shape[0];
    for (const HfPart& part : e.parts) {
      const auto begin = static_cast<size_t>(e.offset + part.row_begin * row) * size;
      tensors.push_back({.name = part.name, .dtype = flat_.dtype(), .shape = PartShape(e, part),
                         .fill = [&host, begin](std::span<std::byte> to) {
                           std::memcpy(to.data(), host.data() + begin, to.size());
                         }});
    }
  }
  WriteSafetensors(directory + "/model.safetensors", tensors, {{"format", "pt"}});
}

Digest Weights::ComputeDigest() const {
  if (flat_.device() == Device::kCpu) {
    return WeightDigest(std::span(static_cast<const std::byte*>(flat_.data()), flat_.bytes()));
  }
  std::vector<std::byte> host(flat_.bytes());
  flat_.CopyToHost(host);
  return WeightDigest(host);
}

namespace {

// [1, H] of Normal(0, 1 / sqrt(H + 1)).
void DrawScore(int64_t hidden, uint64_t seed, DType dtype, std::byte* out) {
  RandomStream random(seed, kScoreStream << 32);
  const auto std = static_cast<float>(1 / std::sqrt(static_cast<double>(hidden) + 1));
  std::vector<float> values(static_cast<size_t>(hidden));
  for (float& v : values) v = std * random.NextNormal();
  ConvertFloat(values, dtype, out);
}

}  // namespace

Weights ValueHeadFor(const Weights& policy, uint64_t seed) {
  ModelShape shape = policy.shape();
  shape.scalar_head = true;
  shape.layers = 0;
  shape.vocab = 1;
  shape.eos_tokens.clear();
  shape.unused_tokens.clear();
  shape.bos_token = -1;
  Weights out(shape, policy.flat().device(), policy.flat().dtype());
  std::vector<std::byte> host(out.flat().bytes());
  DrawScore(shape.hidden, seed, out.flat().dtype(),
            host.data() + static_cast<size_t>(out.table().score()) * ElementSize(out.flat().dtype()));
  out.flat().CopyFromHost(host);
  return out;
}

Weights ScalarHeadFrom(const Weights& policy, uint64_t seed) {
  ModelShape shape = policy.shape();
  shape.scalar_head = true;
  const FlatBuffer& from = policy.flat();
  Weights out(shape, from.device(), from.dtype());
  std::vector<std::byte> source(from.bytes()), target(out.flat().bytes());
  from.CopyToHost(source);
  const size_t size = ElementSize(from.dtype());
  std::map<std::string, int64_t> places;
  for (const TensorEntry& e : policy.table().entries()) places[e.name] = e.offset;
  for (const TensorEntry& e : out.table().entries()) {
    const auto to = static_cast<size_t>(e.offset) * size;
    if (e.name == "score") {
      DrawScore(shape.hidden, seed, from.dtype(), target.data() + to);
      continue;
    }
    const auto found = places.find(e.name);
    PLUMB_CHECK(found != places.end(), "trunk tensor " + e.name);
    std::memcpy(target.data() + to, source.data() + static_cast<size_t>(found->second) * size,
                static_cast<size_t>(e.elements) * size);
  }
  out.flat().CopyFromHost(target);
  return out;
}

void SaveModelDirectory(const Weights& weights, const std::string& directory, const std::string& tokenizer_source) {
  constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;
  FileSystem& files = RealFileSystem();
  files.CreateDirectories(directory);
  weights.Save(directory);
  WriteModelConfig(weights.shape(), directory, weights.flat().dtype() == DType::kFloat32 ? "float32" : "bfloat16");
  if (tokenizer_source.empty()) return;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"}) {
    const std::string from = tokenizer_source + "/" + name;
    // Synced like the weights: a checkpoint's manifest, written last, speaks of these files, too.
    if (files.Exists(from)) files.WriteFileAtomic(directory + "/" + name, files.ReadFile(from, kMaxTokenizerBytes));
  }
  const std::string more = "/additional_chat_templates", tool_use = more + "/tool_use.jinja";
  if (!files.Exists(tokenizer_source + tool_use)) return;
  files.CreateDirectories(directory + more);
  files.WriteFileAtomic(directory + tool_use, files.ReadFile(tokenizer_source + tool_use, kMaxTokenizerBytes));
}

}  // namespace plumb::policy_model
