#include "policy_model/memory/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/problem.h"
#include "common/base/rng.h"
#include "kernels/block_hash.h"
#include "policy_model/families/experts/exact_floats.h"
#include "policy_model/families/model_config.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/memory/load_check.h"
#include "policy_model/memory/stacked_tensor.h"
#include "policy_model/memory/task_weights.h"

namespace plumb::policy_model {
namespace {

constexpr uint64_t kInitStream = 0x1417;
constexpr uint64_t kAdapterStream = 0x10a7;
constexpr uint64_t kTaskTokenStream = 0x7a5c;
constexpr int64_t kChunkElements = int64_t{1} << 20;  // of host memory at a time

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

// Floats into a buffer of any type from element `first` on.
class FloatWriter {
 public:
  explicit FloatWriter(FlatBuffer& flat) : flat_(flat) {}
  void Write(int64_t first, std::span<const float> values) {
    rounded_.resize(values.size() * ElementSize(flat_.dtype()));
    ConvertFloat(values, flat_.dtype(), rounded_.data());
    flat_.CopyFromHost(rounded_, first);
  }

 private:
  FlatBuffer& flat_;
  std::vector<std::byte> rounded_;
};

// Draws every tensor of a set, each from a stream of its own.
void Draw(ParameterSet& set, uint64_t seed, uint64_t stream, double init_std, double residual) {
  std::vector<float> values;
  FloatWriter writer(set.flat);
  for (const TensorEntry& e : set.table->entries()) {
    RandomStream random(seed, stream++);
    const auto std = static_cast<float>(e.init == TensorInit::kResidual ? residual : init_std);
    const auto bound = static_cast<float>(1 / std::sqrt(static_cast<double>(e.columns())));
    const auto draw = [&] {
      switch (e.init) {
        case TensorInit::kOnes: return 1.0f;
        case TensorInit::kZeros: return 0.0f;
        case TensorInit::kUniform: return bound * (2 * random.NextUniform() - 1);
        case TensorInit::kNormal:
        case TensorInit::kResidual: break;
      }
      return std * random.NextNormal();
    };
    for (int64_t begin = 0; begin < e.elements; begin += kChunkElements) {
      values.resize(static_cast<size_t>(std::min(kChunkElements, e.elements - begin)));
      for (float& v : values) v = draw();
      writer.Write(e.offset + begin, values);
    }
  }
}

// The tokens of tasks begin as what the model computes of tokens drawn from its vocabulary.
void DrawTaskTokens(const Weights& weights, uint64_t seed, ParameterSet& set) {
  const int64_t first = set.adapter->tasks().tokens,
                n = set.adapter->spec().task_tokens * static_cast<int64_t>(TasksOf(set));
  if (first < 0) return;
  const ModelShape& shape = weights.shape();
  const int64_t hidden = shape.hidden;
  RandomStream random(seed, kTaskTokenStream << 32);
  std::vector<std::byte> bytes(static_cast<size_t>(hidden) * ElementSize(weights.dtype()));
  std::vector<float> row(static_cast<size_t>(hidden));
  FloatWriter writer(set.flat);
  for (int64_t i = 0; i < n; ++i) {
    const auto token = static_cast<int64_t>(random.NextBelow(static_cast<uint32_t>(shape.vocab)));
    weights.flat().CopyToHost(bytes, weights.table().embedding() + token * hidden);
    ConvertToFloat(bytes.data(), weights.dtype(), row);
    for (float& v : row) v *= static_cast<float>(weights.table().plan().embedding_scale);
    writer.Write(first + i * hidden, row);
  }
}

Problem WhyUnfit(const std::string& name, const TensorView& view,
                 const std::vector<int64_t>& want) {
  if (view.shape != want) {
    return "tensor " + name + " has shape " + ShapeText(view.shape) + ", config.json asks for " +
           ShapeText(want);
  }
  if (!HoldsFloats(view)) return "tensor " + name + " holds integers";
  return std::nullopt;
}

using FindName = std::function<std::string(const std::string&)>;

// Under which name the part's matrices are there, in four bits or not; `whole`: what find says of
// the tensor itself. "": they are not.
std::string StackedName(const TensorPart& part, const std::string& whole, const FindName& find) {
  if (!whole.empty() || !IsStacked(part)) return whole;
  const std::string blocks = find(part.file_tensor + kBlocksSuffix);
  return blocks.substr(0, blocks.size() - std::min(blocks.size(), strlen(kBlocksSuffix)));
}

bool StackedAt(const TensorPart& part, const std::string& whole, const FindName& find) {
  return IsStacked(part) && !StackedName(part, whole, find).empty();
}

std::string TensorsMissing(const std::string& names) {
  return "tensors are missing:" + names +
         (names == " lm_head.weight" ? " (where the head is the embedding, config.json has to say "
                                       "\"tie_word_embeddings\": true)"
                                     : "");
}

// Fills a set from the files of a folder. `find` says under which name a tensor of the table is
// there ("": missing); returns the names that were used.
std::set<std::string> Fill(ParameterSet& set, const SafetensorsReader& reader,
                           const std::string& where, const FindName& find) {
  FloatWriter writer(set.flat);
  std::vector<float> values;
  std::set<std::string> used;
  std::string missing;
  // The file's order or numbers are not ours: matrix by matrix, with the first part of the tensor.
  const auto fill_stack = [&](const TensorEntry& e, const TensorPart& part,
                              const StackedSource& source) {
    if (const Problem problem = WhyUnfitStack(source, e, part))
      throw Error(ErrorCode::kCorruption, *problem, where);
    const int64_t each = e.elements / part.file_stack;
    for (int64_t i = 0; i < part.file_stack; ++i) {
      ReadStacked(source, e, part, i, values);
      writer.Write(e.offset + i * each, values);
    }
    for (const std::string& name : source.names) {
      reader.Release(reader.tensors().at(name));
      used.insert(name);
    }
  };
  for (const TensorEntry& e : set.table->entries()) {
    const int64_t columns = e.columns();
    for (const TensorPart& part : e.parts) {
      const std::string whole = find(part.file_tensor);
      if (StackedAt(part, whole, find)) {
        if (part.file_row == 0)
          fill_stack(e, part, FindStack(reader.tensors(), StackedName(part, whole, find)));
        continue;
      }
      const std::string& name = whole;
      if (name.empty()) {
        if (missing.find(" " + part.file_tensor) == std::string::npos)
          missing += " " + part.file_tensor;
        continue;
      }
      const TensorView& view = reader.tensors().at(name);
      const std::vector<int64_t> want = FileShapeOf(e, part);
      if (const Problem problem = WhyUnfit(name, view, want)) {
        throw Error(view.shape != want ? ErrorCode::kCorruption : ErrorCode::kUnsupported, *problem,
                    where);
      }
      if (e.exact) {
        std::vector<float> whole(static_cast<size_t>(e.elements / kExactParts));
        ConvertToFloat(view.bytes.data(), view.dtype, whole);
        values.resize(static_cast<size_t>(e.elements));
        SplitExact(whole, values);
        writer.Write(e.offset, values);
        used.insert(name);
        continue;
      }
      const int64_t n = (part.row_end - part.row_begin) * columns,
                    size = static_cast<int64_t>(ElementSize(view.dtype));
      for (int64_t begin = 0; begin < n; begin += kChunkElements) {
        values.resize(static_cast<size_t>(std::min(kChunkElements, n - begin)));
        ConvertToFloat(view.bytes.data() + (part.file_row * columns + begin) * size, view.dtype,
                       values);
        writer.Write(e.offset + part.row_begin * columns + begin, values);
      }
      reader.Release(view);
      used.insert(name);
    }
  }
  if (!missing.empty()) throw Error(ErrorCode::kCorruption, TensorsMissing(missing), where);
  return used;
}

void WriteExact(const ParameterSet& set, const TensorEntry& e, std::span<std::byte> to) {
  std::vector<std::byte> bytes(static_cast<size_t>(e.elements) * ElementSize(set.flat.dtype()));
  std::vector<float> parts(static_cast<size_t>(e.elements)), whole(parts.size() / kExactParts);
  set.flat.CopyToHost(bytes, e.offset);
  ConvertToFloat(bytes.data(), set.flat.dtype(), parts);
  JoinExact(parts, whole);
  std::memcpy(to.data(), whole.data(), to.size());
}

void Write(const ParameterSet& set, const std::string& path) {
  std::vector<TensorToWrite> tensors;
  for (const TensorEntry& e : set.table->entries()) {
    for (const TensorPart& part : e.parts) {
      if (part.file_row > 0) continue;  // written with the first part of its file tensor
      if (e.exact) {
        tensors.push_back(
            {.name = part.file_tensor,
             .dtype = DType::kFloat32,
             .shape = FileShapeOf(e, part),
             .fill = [&set, &e](std::span<std::byte> to) { WriteExact(set, e, to); }});
        continue;
      }
      tensors.push_back({.name = part.file_tensor,
                         .dtype = set.flat.dtype(),
                         .shape = FileShapeOf(e, part),
                         .fill = [&set, &e, &part](std::span<std::byte> to) {
                           const int64_t first = e.offset + part.row_begin * e.columns();
                           if (!IsStacked(part)) {
                             set.flat.CopyToHost(to, first);
                             return;
                           }
                           std::vector<std::byte> ours(to.size());
                           set.flat.CopyToHost(ours, first);
                           WriteStacked(e, part, ElementSize(set.flat.dtype()), ours, to);
                         }});
    }
  }
  WriteSafetensors(path, tensors, {{"format", "pt"}});
}

// Where wrappers around a text model put its tensors; "" where it is not there. `before` comes
// before all names of the file.
std::string FindTensor(const std::map<std::string, TensorView>& tensors, const std::string& name,
                       std::string_view before = "") {
  constexpr std::string_view kModel = "model.";
  std::vector<std::string> names = {name, "language_model." + name};
  if (name.starts_with(kModel))
    names.push_back("model.language_model." + name.substr(kModel.size()));
  for (const std::string& candidate : names) {
    const std::string there = std::string(before) + candidate;
    if (tensors.count(there)) return there;
  }
  return "";
}

// What a text model does not need: eyes of wrappers, heads for predicting several tokens, tables
// that follow from the config.
std::string_view BesidePrefix(const std::string& name) {
  for (const std::string_view prefix :
       {"model.visual.", "visual.", "model.vision_tower.", "vision_tower.", "model.vision_model.",
        "model.multi_modal_projector.", "multi_modal_projector.", "model.mm_projector.",
        "mm_projector.", "mtp."}) {
    if (name.starts_with(prefix)) return prefix;
  }
  return "";
}

// "model.layers.61." of a tensor of a layer behind the last, where the family has such; else "".
std::string_view LayerBeyond(const ModelShape& shape, std::string_view name) {
  if (!FamilyOf(shape).predicts_beyond) return "";
  for (const std::string_view before :
       {"model.layers.", "language_model.model.layers.", "model.language_model.layers."}) {
    if (!name.starts_with(before)) continue;
    size_t end = before.size();
    int64_t layer = 0;
    while (end < name.size() && name[end] >= '0' && name[end] <= '9' && layer < shape.layers)
      layer = 10 * layer + (name[end++] - '0');
    while (end < name.size() && name[end] != '.') ++end;
    if (layer >= shape.layers) return name.substr(0, end + 1);
  }
  return "";
}

// FindTensor for a model's own tensors. Of a tied pair either name may be the one that is there.
std::string FindOf(const ModelShape& shape, const std::map<std::string, TensorView>& tensors,
                   const std::string& wanted) {
  const std::string name = FindTensor(tensors, wanted);
  return name.empty() && shape.tied && wanted == "model.embed_tokens.weight"
             ? FindTensor(tensors, "lm_head.weight")
             : name;
}

// What is there and no part of the model; "": nothing. Counts what stands beside the text model, by
// the prefix of its names.
std::string LeftOver(const ModelShape& shape, const std::map<std::string, TensorView>& tensors,
                     const std::set<std::string>& used,
                     std::map<std::string_view, int64_t>& beside) {
  std::string left;
  for (const auto& [name, view] : tensors) {
    // A tied model may carry its head twice (ReadModelConfig unties one that is another); older
    // exports carry rotary tables that follow from the config.
    if (used.count(name) || (shape.tied && name.ends_with("lm_head.weight")) ||
        name.ends_with("rotary_emb.inv_freq"))
      continue;
    std::string_view prefix = BesidePrefix(name);
    if (prefix.empty()) prefix = LayerBeyond(shape, name);
    if (!prefix.empty()) ++beside[prefix];
    else left += " " + name;
  }
  return left.empty() ? "" : "tensors that this model does not have:" + left;
}

}  // namespace

std::vector<std::string> WhyNotLoadable(const TensorTable& table, const std::string& directory) {
  const auto reader = SafetensorsReader::OpenDirectory(directory);
  const auto& tensors = reader->tensors();
  std::vector<std::string> problems;
  std::set<std::string> used, lost;
  std::string missing;
  for (const TensorEntry& e : table.entries()) {
    for (const TensorPart& part : e.parts) {
      const FindName find = [&](const std::string& wanted) {
        return FindOf(table.shape(), tensors, wanted);
      };
      const std::string name = find(part.file_tensor);
      if (StackedAt(part, name, find)) {
        const StackedSource source = FindStack(tensors, StackedName(part, name, find));
        const bool first = used.insert(source.names[0]).second;
        used.insert(source.names.begin(), source.names.end());
        const Problem problem = first ? WhyUnfitStack(source, e, part) : std::nullopt;
        if (problem) problems.push_back(*problem);
      } else if (name.empty()) {
        if (lost.insert(part.file_tensor).second) missing += " " + part.file_tensor;
      } else if (used.insert(name).second) {
        const Problem problem = WhyUnfit(name, tensors.at(name), FileShapeOf(e, part));
        if (problem) problems.push_back(*problem);
      }
    }
  }
  std::map<std::string_view, int64_t> beside;
  const std::string left = LeftOver(table.shape(), tensors, used, beside);
  if (!missing.empty()) problems.push_back(TensorsMissing(missing));
  if (!left.empty()) problems.push_back(left);
  return problems;
}

Weights::Weights(const ModelShape& shape, const Stream& stream, DType dtype)
    : table_(std::make_shared<const TensorTable>(shape)),
      sets_{std::make_shared<ParameterSet>("base", table_, stream, dtype)} {}

Weights Weights::WithoutMemory(const ModelShape& shape, const Stream& stream, DType dtype) {
  Weights out;
  out.table_ = std::make_shared<const TensorTable>(shape);
  out.sets_ = {std::make_shared<ParameterSet>(
      "base", out.table_, FlatBuffer::WithoutMemory(stream, dtype, out.table_->flat_elements()))};
  return out;
}

void Weights::AddAdapter(const AdapterSpec& spec, uint64_t seed) {
  PLUMB_CHECK(spec.tasks.empty() || gated() < 0, "one set of adapters has tasks");
  const bool planned = flat().data() == nullptr;
  for (const auto& set : sets_) {
    set->trained = false;
    if (!planned) set->digest = DigestOf(set->flat);
  }
  auto table = std::make_shared<const AdapterTable>(*table_, spec);
  const std::string name = "lora" + (sets_.size() > 1 ? std::to_string(sets_.size()) : "");
  auto set = planned ? std::make_shared<ParameterSet>(
                           name, table,
                           FlatBuffer::WithoutMemory(stream(), dtype(), table->flat_elements()))
                     : std::make_shared<ParameterSet>(name, table, stream(), dtype());
  set->adapter = std::move(table);
  if (!planned) {
    Draw(*set, seed, (kAdapterStream + sets_.size() - 1) << 32, 0, 0);
    DrawTaskTokens(*this, seed, *set);
  }
  sets_.push_back(std::move(set));
}

int Weights::gated() const {
  for (size_t i = 0; i < adapters().size(); ++i) {
    if (adapters()[i]->adapter->gated()) return static_cast<int>(i);
  }
  return -1;
}

int64_t Weights::task_tokens() const {
  const int at = gated();
  return at < 0 ? 0 : adapters()[static_cast<size_t>(at)]->adapter->spec().task_tokens;
}

Weights Weights::ForTask(const std::string& task) const {
  const int at = gated();
  PLUMB_CHECK(at >= 0, "a policy with tasks");
  const AdapterSpec& spec = adapters()[static_cast<size_t>(at)]->adapter->spec();
  const int32_t number = spec.TaskNamed(task, "--task");
  Weights out;
  out.table_ = table_;
  for (size_t i = 0; i < sets_.size(); ++i) {
    const ParameterSet& set = *sets_[i];
    if (static_cast<int>(i) != at + 1) {
      out.sets_.push_back(sets_[i]);
      continue;
    }
    auto table =
        std::make_shared<const AdapterTable>(*table_, spec.ForTask(static_cast<size_t>(number)));
    auto one = std::make_shared<ParameterSet>(set.name, table, stream(), dtype());
    one->adapter = std::move(table);
    one->trained = set.trained;
    FoldTask(set, static_cast<size_t>(number), *one);
    out.sets_.push_back(std::move(one));
  }
  return out;
}

void Weights::Merge() {
  PLUMB_CHECK(sets_[0].use_count() == 1, "another model shares this base");
  PLUMB_CHECK(gated() < 0, "of a policy with tasks one task is merged: ForTask");
  // `n` elements of a set as floats.
  const auto read = [](const FlatBuffer& flat, int64_t first, int64_t n) {
    std::vector<std::byte> bytes(static_cast<size_t>(n) * ElementSize(flat.dtype()));
    std::vector<float> values(static_cast<size_t>(n));
    flat.CopyToHost(bytes, first);
    ConvertToFloat(bytes.data(), flat.dtype(), values);
    return values;
  };
  FloatWriter writer(flat());
  for (const auto& set : adapters()) {
    for (const TensorEntry& e : table_->entries()) {
      const auto* parts = set->adapter->Of(e.offset);
      if (!parts) continue;
      const int64_t columns = e.columns();
      for (const LowRank& part : *parts) {
        const int64_t all = part.experts, rows = part.rows / all;  // of one expert
        const std::vector<float> a = read(set->flat, part.a, all * part.rank * columns),
                                 b = read(set->flat, part.b, part.rows * part.rank);
        std::vector<float> sum(static_cast<size_t>(columns));
        for (int64_t r = 0; r < part.rows; ++r) {
          std::fill(sum.begin(), sum.end(), 0.0f);
          for (int64_t k = 0; k < part.rank; ++k) {
            const float by = b[static_cast<size_t>((r % rows * part.rank + k) * all + r / rows)];
            const float* row = a.data() + (r / rows * part.rank + k) * columns;
            for (size_t c = 0; c < sum.size(); ++c) sum[c] += by * row[c];
          }
          const int64_t first = e.offset + (part.row_begin + r) * columns;
          std::vector<float> w = read(flat(), first, columns);
          for (size_t c = 0; c < w.size(); ++c) w[c] += part.scale * sum[c];
          writer.Write(first, w);
        }
      }
    }
  }
  sets_.resize(1);
  base().trained = true;
  base().digest = {};
}

bool Weights::Drops() const {
  return std::any_of(sets_.begin(), sets_.end(), [](const auto& set) {
    return set->trained && set->adapter && set->adapter->spec().dropout > 0;
  });
}

Weights Weights::WithoutAdapters() const {
  Weights out;
  out.table_ = table_;
  out.sets_ = {sets_[0]};
  return out;
}

Weights Weights::Twin() const {
  Weights out;
  out.table_ = table_;
  for (const auto& set : sets_) {
    if (!set->trained) {
      out.sets_.push_back(set);
      continue;
    }
    out.sets_.push_back(std::make_shared<ParameterSet>(set->name, set->table, stream(), dtype()));
    out.sets_.back()->adapter = set->adapter;
  }
  return out;
}

void Weights::Initialise(uint64_t seed, double init_std) {
  Draw(base(), seed, kInitStream << 32, init_std,
       init_std / std::sqrt(2.0 * static_cast<double>(shape().layers)));
}

void Weights::Load(const std::string& directory) {
  const auto reader = SafetensorsReader::OpenDirectory(directory);
  const auto& tensors = reader->tensors();
  const std::set<std::string> used =
      Fill(base(), *reader, directory,
           [&](const std::string& wanted) { return FindOf(shape(), tensors, wanted); });
  std::map<std::string_view, int64_t> beside;
  const std::string left = LeftOver(shape(), tensors, used, beside);
  if (!left.empty()) throw Error(ErrorCode::kCorruption, left, directory);
  if (beside.empty()) return;
  std::string what;
  for (const auto& [prefix, count] : beside)
    what += (what.empty() ? "" : ", ") + std::to_string(count) + " of " + std::string(prefix) + "*";
  LogWarningOnce(directory + ": tensors beside the text model are left out: " + what);
}

void Weights::LoadTrained(const std::string& directory) {
  for (const auto& set : sets_) {
    if (!set->trained) continue;
    if (!set->adapter) {
      Load(directory);
      continue;
    }
    const AdapterSpec there = ReadAdapterConfig(directory).spec, here = set->adapter->spec();
    if (!there.SameFunction(here)) {
      throw Error(ErrorCode::kConflict,
                  "the adapter has " + there.Text() + ", asked for are " + here.Text(), directory);
    }
    const auto reader = SafetensorsReader::OpenFile(directory + "/" + kAdapterFile);
    const auto& tensors = reader->tensors();
    const auto used = Fill(*set, *reader, directory, [&](const std::string& name) {
      return FindTensor(tensors, name.substr(kPeftPrefix.size()), kPeftPrefix);
    });
    std::string left;
    for (const auto& [name, view] : tensors) left += used.count(name) ? "" : " " + name;
    if (!left.empty())
      throw Error(ErrorCode::kCorruption, "tensors that this adapter does not have:" + left,
                  directory);
  }
}

std::vector<std::pair<std::string, Digest>> Weights::SetDigests() const {
  std::vector<std::pair<std::string, Digest>> sets;
  for (const auto& set : sets_)
    sets.emplace_back(set->name, set->digest.empty() ? DigestOf(set->flat) : set->digest);
  return sets;
}

Digest DigestOf(const FlatBuffer& flat) {
  const auto bytes = static_cast<int64_t>(flat.bytes());
  kernels::HashWeightBlocks hash{.bytes = flat.data(), .size = bytes};
  std::vector<BlockHash> blocks(static_cast<size_t>(hash.blocks()));
  FlatBuffer on_device;
  if (flat.device() != Device::kCpu)
    on_device = FlatBuffer(flat.stream(), DType::kInt32, hash.blocks() * 4);
  hash.out =
      flat.device() == Device::kCpu ? blocks.data() : static_cast<BlockHash*>(on_device.data());
  kernels::Call({.stream = flat.stream(), .dtype = flat.dtype()}, hash);
  if (flat.device() != Device::kCpu)
    on_device.CopyToHost(std::as_writable_bytes(std::span(blocks)));
  return CombineBlocks(blocks, static_cast<uint64_t>(bytes));
}

void SaveModelDirectory(const Weights& weights, const std::string& directory,
                        const std::string& tokenizer_source, const std::string& base_model) {
  constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;
  FileSystem& files = RealFileSystem();
  files.CreateDirectories(directory);
  for (const auto& set : weights.sets()) {
    if (!set->trained) continue;
    if (set->adapter) {
      Write(*set, directory + "/" + kAdapterFile);
      WriteAdapterConfig(set->adapter->spec(), base_model, directory);
    } else {
      Write(*set, directory + "/model.safetensors");
      WriteModelConfig(weights.shape(), directory,
                       weights.dtype() == DType::kFloat32 ? "float32" : "bfloat16");
    }
  }
  if (tokenizer_source.empty()) return;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                           "special_tokens_map.json"}) {
    const std::string from = tokenizer_source + "/" + name;
    // Synced like the weights: a checkpoint's manifest, written last, speaks of these files, too.
    if (files.Exists(from))
      files.WriteFileAtomic(directory + "/" + name, files.ReadFile(from, kMaxTokenizerBytes));
  }
  const std::string more = "/additional_chat_templates", tool_use = more + "/tool_use.jinja";
  if (!files.Exists(tokenizer_source + tool_use)) return;
  files.CreateDirectories(directory + more);
  files.WriteFileAtomic(directory + tool_use,
                        files.ReadFile(tokenizer_source + tool_use, kMaxTokenizerBytes));
}

}  // namespace plumb::policy_model
