#include "policy_model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "common/digest.h"
#include "common/error.h"
#include "common/file.h"
#include "common/log.h"
#include "common/rng.h"
#include "kernels/block_hash.h"
#include "policy_model/families/model_config.h"
#include "policy_model/files/safetensors.h"

namespace plumb::policy_model {
namespace {

constexpr uint64_t kInitStream = 0x1417;
constexpr uint64_t kScoreStream = 0x5c03;
constexpr int64_t kChunkElements = int64_t{1} << 20;  // of host memory at a time

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

std::vector<int64_t> FileShape(const TensorEntry& entry, const TensorPart& part) {
  std::vector<int64_t> shape = entry.shape;
  shape[0] = part.file_rows;
  return shape;
}

// Floats into a buffer of any type from element `first` on, and unrounded into `master` where there is one.
class FloatWriter {
 public:
  FloatWriter(FlatBuffer& flat, FlatBuffer* master) : flat_(flat), master_(master) {}
  void Write(int64_t first, std::span<const float> values) {
    rounded_.resize(values.size() * ElementSize(flat_.dtype()));
    ConvertFloat(values, flat_.dtype(), rounded_.data());
    flat_.CopyFromHost(rounded_, first);
    if (master_) master_->CopyFromHost(std::as_bytes(values), first);
  }

 private:
  FlatBuffer& flat_;
  FlatBuffer* master_;
  std::vector<std::byte> rounded_;
};

// Where wrappers around a text model put its tensors.
std::string FindTensor(const std::map<std::string, TensorView>& tensors, const std::string& name) {
  if (tensors.count(name)) return name;
  constexpr std::string_view kModel = "model.";
  if (name.starts_with(kModel)) {
    const std::string wrapped = "model.language_model." + name.substr(kModel.size());
    if (tensors.count(wrapped)) return wrapped;
  }
  const std::string outer = "language_model." + name;
  return tensors.count(outer) ? outer : "";
}

// What a text model does not need: eyes of wrappers, heads for predicting several tokens, tables that follow from the config.
bool IsBeside(const std::string& name) {
  for (const char* prefix : {"model.visual.", "visual.", "model.vision_tower.", "vision_tower.", "model.vision_model.",
                             "model.multi_modal_projector.", "multi_modal_projector.", "mtp."}) {
    if (name.starts_with(prefix)) return true;
  }
  return false;
}

}  // namespace

Weights::Weights(const ModelShape& shape, const Stream& stream, DType dtype)
    : table_(shape), flat_(stream, dtype, table_.flat_elements()) {}

void Weights::Initialise(uint64_t seed, double init_std) {
  const double residual = init_std / std::sqrt(2.0 * static_cast<double>(shape().layers));
  uint64_t stream = kInitStream << 32;
  std::vector<float> values;
  FloatWriter writer(flat_, nullptr);
  for (const TensorEntry& e : table_.entries()) {
    RandomStream random(seed, stream++);
    const auto std = static_cast<float>(e.init == TensorInit::kResidual ? residual : init_std);
    for (int64_t begin = 0; begin < e.elements; begin += kChunkElements) {
      values.resize(static_cast<size_t>(std::min(kChunkElements, e.elements - begin)));
      for (float& v : values) {
        v = e.init == TensorInit::kOnes ? 1.0f : e.init == TensorInit::kZeros ? 0.0f : std * random.NextNormal();
      }
      writer.Write(e.offset + begin, values);
    }
  }
}

void Weights::Load(const std::string& directory, FlatBuffer* master) {
  const auto reader = SafetensorsReader::OpenDirectory(directory);
  const auto& tensors = reader->tensors();
  FloatWriter writer(flat_, master);
  std::vector<float> values;
  std::set<std::string> used;
  std::string missing;
  for (const TensorEntry& e : table_.entries()) {
    const int64_t columns = e.columns();
    for (const TensorPart& part : e.parts) {
      std::string name = FindTensor(tensors, part.file_tensor);
      // Of a tied pair either name may be the one that is there.
      if (name.empty() && shape().tied && part.file_tensor == "model.embed_tokens.weight") name = FindTensor(tensors, "lm_head.weight");
      if (name.empty()) {
        if (missing.find(" " + part.file_tensor) == std::string::npos) missing += " " + part.file_tensor;
        continue;
      }
      const TensorView& view = tensors.at(name);
      const std::vector<int64_t> want = FileShape(e, part);
      if (view.shape != want) {
        throw Error(ErrorCode::kCorruption, "tensor " + name + " has shape " + ShapeText(view.shape) +
                                                ", config.json asks for " + ShapeText(want), directory);
      }
      if (view.dtype == DType::kInt32 || view.dtype == DType::kInt64) {
        throw Error(ErrorCode::kUnsupported, "tensor " + name + " holds integers", directory);
      }
      const int64_t n = (part.row_end - part.row_begin) * columns, size = static_cast<int64_t>(ElementSize(view.dtype));
      for (int64_t begin = 0; begin < n; begin += kChunkElements) {
        values.resize(static_cast<size_t>(std::min(kChunkElements, n - begin)));
        ConvertToFloat(view.bytes.data() + (part.file_row * columns + begin) * size, view.dtype, values);
        writer.Write(e.offset + part.row_begin * columns + begin, values);
      }
      reader->Release(view);
      used.insert(name);
    }
  }
  if (missing == " lm_head.weight") {
    missing +=
        " (where the head is the embedding, config.json has to say \"tie_word_embeddings\": true)";
  }
  if (!missing.empty()) throw Error(ErrorCode::kCorruption, "tensors are missing:" + missing, directory);
  std::string left;
  int64_t beside = 0;
  for (const auto& [name, view] : tensors) {
    // A tied model may carry its head twice (ReadModelConfig unties one that is another); older exports carry rotary
    // tables that follow from the config.
    if (used.count(name) || (shape().tied && name.ends_with("lm_head.weight")) || name.ends_with("rotary_emb.inv_freq")) continue;
    if (IsBeside(name)) ++beside;
    else left += " " + name;
  }
  if (!left.empty()) throw Error(ErrorCode::kCorruption, "tensors that this model does not have:" + left, directory);
  if (beside > 0) {
    LogWarning(directory + ": " + std::to_string(beside) + " tensors beside the text model (vision, multi-token heads) are left out");
  }
}

void Weights::Save(const std::string& directory) const {
  std::vector<TensorToWrite> tensors;
  for (const TensorEntry& e : table_.entries()) {
    for (const TensorPart& part : e.parts) {
      if (part.file_row > 0) continue;  // written with the first part of its file tensor
      tensors.push_back({.name = part.file_tensor, .dtype = flat_.dtype(), .shape = FileShape(e, part),
                         .fill = [this, first = e.offset + part.row_begin * e.columns()](std::span<std::byte> to) {
                           flat_.CopyToHost(to, first);
                         }});
    }
  }
  WriteSafetensors(directory + "/model.safetensors", tensors, {{"format", "pt"}});
}

Digest Weights::ComputeDigest() const { return DigestOf(flat_); }

Digest DigestOf(const FlatBuffer& flat) {
  const auto bytes = static_cast<int64_t>(flat.bytes());
  kernels::HashWeightBlocks hash{.bytes = flat.data(), .size = bytes};
  std::vector<BlockHash> blocks(static_cast<size_t>(hash.blocks()));
  FlatBuffer on_device;
  if (flat.device() != Device::kCpu)
    on_device = FlatBuffer(flat.stream(), DType::kInt32, hash.blocks() * 4);
  hash.out = flat.device() == Device::kCpu ? blocks.data() : static_cast<BlockHash*>(on_device.data());
  kernels::Call({.stream = flat.stream(), .dtype = flat.dtype()}, hash);
  if (flat.device() != Device::kCpu) on_device.CopyToHost(std::as_writable_bytes(std::span(blocks)));
  return CombineBlocks(blocks, static_cast<uint64_t>(bytes));
}

namespace {

// [1, H] of Normal(0, 1 / sqrt(H + 1)) as the score of `out`.
void DrawScore(uint64_t seed, Weights& out) {
  const int64_t hidden = out.shape().hidden;
  RandomStream random(seed, kScoreStream << 32);
  const auto std = static_cast<float>(1 / std::sqrt(static_cast<double>(hidden) + 1));
  std::vector<float> values(static_cast<size_t>(hidden));
  for (float& v : values) v = std * random.NextNormal();
  FloatWriter(out.flat(), nullptr).Write(out.table().score(), values);
}

}  // namespace

Weights ValueHeadFor(const Weights& policy, uint64_t seed) {
  ModelShape shape = policy.shape();
  shape.scalar_head = true;
  shape.layers = 0;
  shape.sliding.clear();
  shape.rotated.clear();
  shape.vocab = 1;
  shape.eos_tokens.clear();
  shape.unused_tokens.clear();
  shape.bos_token = -1;
  Weights out(shape, policy.flat().stream(), policy.flat().dtype());
  DrawScore(seed, out);
  return out;
}

Weights ScalarHeadFrom(const Weights& policy, uint64_t seed) {
  ModelShape shape = policy.shape();
  shape.scalar_head = true;
  const FlatBuffer& from = policy.flat();
  Weights out(shape, from.stream(), from.dtype());
  std::map<std::string, int64_t> places;
  for (const TensorEntry& e : policy.table().entries()) places[e.name] = e.offset;
  std::vector<std::byte> bytes;
  for (const TensorEntry& e : out.table().entries()) {
    if (e.name == "score") continue;
    const auto found = places.find(e.name);
    PLUMB_CHECK(found != places.end(), "trunk tensor " + e.name);
    bytes.resize(static_cast<size_t>(e.elements) * ElementSize(from.dtype()));
    from.CopyToHost(bytes, found->second);
    out.flat().CopyFromHost(bytes, e.offset);
  }
  DrawScore(seed, out);
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
