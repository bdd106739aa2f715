#include "learner/update/optimizer_file.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "learner/update/checkpoint_manifest.h"
#include "learner/update/master_halves.h"
#include "learner/update/shares/model_share.h"
#include "policy_model/files/safetensors.h"

namespace plumb::learner {
namespace {

using policy_model::FlatBuffer;
using policy_model::SafetensorsReader;
using policy_model::TensorEntry;
using policy_model::TensorToWrite;
using policy_model::TensorView;

constexpr int64_t kChunk = int64_t{1} << 22;  // elements in host memory at a time

int64_t Words(int64_t halves) { return (halves + 1) / 2; }

// Only a bfloat16 model has masters of its own whose upper half is the parameter.
bool MayHalve(const Optimizer::SetState& state) {
  return state.has_own_master() && state.set->flat.dtype() == DType::kBFloat16;
}

// Of a model that ranks compute together; nullptr: each has all of it, or it is a copy.
ModelShare* ShareOf(const Optimizer* optimizer) { return optimizer ? optimizer->share() : nullptr; }

// Tensors of files, in their order; the tensor as files have it, and as it is here: nullptr where
// nothing of it is, or it is frozen.
size_t TensorsOf(const ModelShare* share, const Optimizer::SetState& state) {
  return share ? share->tensors() : state.set->table->entries().size();
}
const TensorEntry& InFile(const ModelShare* share, const Optimizer::SetState& state, size_t i) {
  return share ? share->WholeEntry(i) : state.set->table->entries()[i];
}
const TensorEntry* Here(const ModelShare* share, const Optimizer::SetState& state, size_t i) {
  const TensorEntry* const own = share ? share->Own(i) : &state.set->table->entries()[i];
  return own && state.PlaceOf(*own) >= 0 ? own : nullptr;
}
// Frozen: the model's file has all of it. A share whose tensors are not all here trains all.
bool InNoFile(const ModelShare* share, const Optimizer::SetState& state, size_t i) {
  const TensorEntry* const own = share ? share->Own(i) : &state.set->table->entries()[i];
  return own && state.PlaceOf(*own) < 0;
}

// A part of live sets that may be spread over ranks, or of a copy.
void ReadKept(const Optimizer* optimizer, const Optimizer::SetState& state,
              const FlatBuffer& buffer, int64_t place, std::span<std::byte> out) {
  if (optimizer) optimizer->ReadKept(state, buffer, place, out);
  else buffer.CopyToHost(out, place);
}

// Calls `f(first, masters, parameters)` for one piece of the tensor after the other. Here and below
// no tensor is frozen, unless it is said.
template <class F>
void EachPiece(const Optimizer* optimizer, Optimizer::SetState& state, const TensorEntry& entry,
               const F& f) {
  std::vector<float> masters;
  std::vector<BFloat16> rounded;
  for (int64_t first = 0; first < entry.elements; first += kChunk) {
    const auto n = static_cast<size_t>(std::min(kChunk, entry.elements - first));
    masters.resize(n);
    rounded.resize(n);
    ReadKept(optimizer, state, state.own_master, state.PlaceOf(entry) + first,
             std::as_writable_bytes(std::span(masters)));
    state.set->flat.CopyToHost(std::as_writable_bytes(std::span(rounded)), entry.offset + first);
    f(first, std::span<const float>(masters), std::span<const BFloat16>(rounded));
  }
}

// Whether the lower halves say the masters of the tensor, and the ties among them.
bool FindTies(const Optimizer* optimizer, Optimizer::SetState& state, const TensorEntry& entry,
              std::vector<int64_t>& ties) {
  bool exact = true;
  std::vector<uint16_t> low;
  EachPiece(optimizer, state, entry, [&](int64_t first, auto masters, auto rounded) {
    low.resize(masters.size());
    exact &= SplitMasters(masters, rounded, first, low, ties);
  });
  return exact;
}

// All of tensor `i` in the buffer, whoever has it.
void ReadWhole(const Optimizer* optimizer, const Optimizer::SetState& state, size_t i,
               const FlatBuffer& from, std::span<std::byte> to) {
  ModelShare* const share = ShareOf(optimizer);
  const TensorEntry* const here = Here(share, state, i);
  if (!share) return ReadKept(optimizer, state, from, state.PlaceOf(*here), to);
  std::vector<std::byte> own;
  if (here) {
    own.resize(static_cast<size_t>(here->elements) * sizeof(float));
    ReadKept(optimizer, state, from, state.PlaceOf(*here), own);
  }
  share->Join(i, sizeof(float), own, to);
}

TensorToWrite Whole(const char* of, size_t i, const Optimizer* optimizer,
                    Optimizer::SetState& state, FlatBuffer* from) {
  const TensorEntry& entry = InFile(ShareOf(optimizer), state, i);
  return {.name = of + entry.name,
          .dtype = DType::kFloat32,
          .shape = entry.shape,
          .fill = [optimizer, &state, from, i](std::span<std::byte> to) {
            ReadWhole(optimizer, state, i, *from, to);
          }};
}

// `from` holds the tensor's part from element `first` on.
TensorToWrite Part(const std::string& name, DType dtype, int64_t elements, FlatBuffer* from,
                   int64_t first) {
  return {.name = name,
          .dtype = dtype,
          .shape = {elements},
          .fill = [from, first](std::span<std::byte> to) { from->CopyToHost(to, first); }};
}

constexpr int64_t kCodesAWord = 4;

int64_t CodeWords(const TensorEntry& entry) {
  return (entry.elements + kCodesAWord - 1) / kCodesAWord;
}

void AddMoments(const Optimizer* optimizer, Optimizer::SetState& state, size_t i,
                std::vector<TensorToWrite>& tensors) {
  if (!state.in_8_bits) {
    tensors.push_back(Whole("m.", i, optimizer, state, &state.m));
    tensors.push_back(Whole("v.", i, optimizer, state, &state.v));
    return;
  }
  const TensorEntry& entry = state.set->table->entries()[i];
  for (auto [name, moment] : {std::pair("m8", &state.m8), std::pair("v8", &state.v8)}) {
    tensors.push_back(Part(std::string(name) + "." + entry.name, DType::kInt32, CodeWords(entry),
                           &moment->codes(), entry.offset / kCodesAWord));
    tensors.push_back(Part(std::string(name) + "_scales." + entry.name, DType::kFloat32,
                           kernels::MomentBlocks(entry.elements), &moment->scales(),
                           moment->first_block(i)));
  }
}

TensorToWrite LowerHalves(const Optimizer* optimizer, Optimizer::SetState& state,
                          const TensorEntry& entry) {
  return {.name = "low." + entry.name,
          .dtype = DType::kInt32,
          .shape = {Words(entry.elements)},
          .fill = [optimizer, &state, &entry](std::span<std::byte> to) {
            std::fill(to.end() - 4, to.end(), std::byte{0});  // the half behind an odd number
            std::vector<uint16_t> low;
            std::vector<int64_t> ties;
            EachPiece(optimizer, state, entry, [&](int64_t first, auto masters, auto rounded) {
              low.resize(masters.size());
              SplitMasters(masters, rounded, first, low, ties);
              std::memcpy(to.data() + 2 * first, low.data(), 2 * low.size());
            });
          }};
}

TensorToWrite Ties(const TensorEntry& entry, std::vector<int64_t> ties) {
  const auto count = static_cast<int64_t>(ties.size());
  return {.name = "ties." + entry.name,
          .dtype = DType::kInt64,
          .shape = {count},
          .fill = [ties = std::move(ties)](std::span<std::byte> to) {
            std::memcpy(to.data(), ties.data(), to.size());
          }};
}

class File {
 public:
  File(const std::string& path, const Optimizer& optimizer)
      : path_(path), optimizer_(optimizer), reader_(SafetensorsReader::OpenFile(path)) {}

  void Read(const char* of, size_t i, const Optimizer::SetState& state, FlatBuffer& into) const {
    const TensorEntry& entry = InFile(optimizer_.share(), state, i);
    const TensorView& view = At(of + entry.name, DType::kFloat32, entry.shape);
    Keep(i, state, view.bytes, into);
    reader_->Release(view);
  }
  // What rounding on the way had lost, where the run's gradients travelled so.
  void ReadResidual(Optimizer::SetState& state, size_t i) const {
    const TensorEntry& in_file = InFile(optimizer_.share(), state, i);
    if (!reader_->tensors().contains("residual." + in_file.name)) return;
    if (state.residual.elements() == 0) {
      state.residual = FlatBuffer(state.grad.stream(), DType::kFloat32, state.trained());
    }
    Read("residual.", i, state, state.residual);
  }
  void ReadMoments(Optimizer::SetState& state, size_t i) const {
    if (!state.in_8_bits) {
      Read("m.", i, state, state.m);
      Read("v.", i, state, state.v);
      return;
    }
    const TensorEntry& entry = state.set->table->entries()[i];
    for (auto [name, moment] : {std::pair("m8", &state.m8), std::pair("v8", &state.v8)}) {
      ReadPart(std::string(name) + "." + entry.name, DType::kInt32, CodeWords(entry),
               moment->codes(), entry.offset / kCodesAWord);
      ReadPart(std::string(name) + "_scales." + entry.name, DType::kFloat32,
               kernels::MomentBlocks(entry.elements), moment->scales(), moment->first_block(i));
    }
  }
  void ReadMaster(Optimizer::SetState& state, size_t i) const {
    ModelShare* const share = optimizer_.share();
    const TensorEntry& entry = InFile(share, state, i);
    const FlatBuffer& flat = share ? share->whole().flat() : state.set->flat;
    const int64_t place = state.PlaceOf(*Here(share, state, i));
    if (!MayHalve(state) || !reader_->tensors().contains("low." + entry.name))
      return Read("master.", i, state, state.own_master);
    const TensorView& halves =
        At("low." + entry.name, DType::kInt32, std::vector<int64_t>{Words(entry.elements)});
    const std::vector<int64_t> ties = TiesOf(entry);
    auto tie = ties.begin();
    std::vector<BFloat16> rounded;
    std::vector<uint16_t> low;
    std::vector<float> masters, all;  // all: of a tensor that is cut
    for (int64_t first = 0; first < entry.elements; first += kChunk) {
      const auto n = static_cast<size_t>(std::min(kChunk, entry.elements - first));
      rounded.resize(n);
      low.resize(n);
      masters.resize(n);
      flat.CopyToHost(std::as_writable_bytes(std::span(rounded)), entry.offset + first);
      std::memcpy(low.data(), halves.bytes.data() + 2 * first, 2 * n);
      std::vector<int64_t> here;
      for (; tie != ties.end() && *tie < first + static_cast<int64_t>(n); ++tie)
        here.push_back(*tie - first);
      if (!JoinMasters(rounded, low, here, masters)) {
        throw Error(ErrorCode::kCorruption,
                    "tensor ties." + entry.name + " does not fit tensor low." + entry.name, path_);
      }
      if (share) {
        all.insert(all.end(), masters.begin(), masters.end());
        continue;
      }
      optimizer_.WriteKept(state, state.own_master, place + first,
                           std::as_bytes(std::span<const float>(masters)));
    }
    if (share) Keep(i, state, std::as_bytes(std::span<const float>(all)), state.own_master);
    reader_->Release(halves);
  }

 private:
  // What this rank keeps of all of tensor `i`.
  void Keep(size_t i, const Optimizer::SetState& state, std::span<const std::byte> all,
            FlatBuffer& into) const {
    ModelShare* const share = optimizer_.share();
    const int64_t place = state.PlaceOf(*Here(share, state, i));
    if (!share) return optimizer_.WriteKept(state, into, place, all);
    optimizer_.WriteKept(state, into, place, share->Cut(i, sizeof(float), all));
  }
  void ReadPart(const std::string& name, DType dtype, int64_t elements, FlatBuffer& into,
                int64_t first) const {
    const TensorView& view = At(name, dtype, {elements});
    into.CopyFromHost(view.bytes, first);
    reader_->Release(view);
  }
  const TensorView& At(const std::string& name, DType dtype,
                       const std::vector<int64_t>& shape) const {
    const auto found = reader_->tensors().find(name);
    if (found == reader_->tensors().end())
      throw Error(ErrorCode::kCorruption, "tensor " + name + " is missing", path_);
    if (found->second.dtype != dtype || found->second.shape != shape) {
      throw Error(ErrorCode::kConflict, "tensor " + name + " has another shape than the model",
                  path_);
    }
    return found->second;
  }
  std::vector<int64_t> TiesOf(const TensorEntry& entry) const {
    const std::string name = "ties." + entry.name;
    const auto found = reader_->tensors().find(name);
    if (found == reader_->tensors().end()) return {};
    const TensorView& view = found->second;
    std::vector<int64_t> ties(view.bytes.size() / sizeof(int64_t));
    if (view.dtype == DType::kInt64)
      std::memcpy(ties.data(), view.bytes.data(), ties.size() * sizeof(int64_t));
    const bool ascending = std::is_sorted(ties.begin(), ties.end(), std::less_equal<>()) &&
                           (ties.empty() || (ties.front() >= 0 && ties.back() < entry.elements));
    if (view.dtype != DType::kInt64 || !ascending) {
      throw Error(ErrorCode::kCorruption, "tensor " + name + " is no list of places of the tensor",
                  path_);
    }
    return ties;
  }

  const std::string path_;
  const Optimizer& optimizer_;
  const std::unique_ptr<SafetensorsReader> reader_;
};

bool Keeps(std::span<const Optimizer::SetState> sets, bool moments) {
  return moments || std::any_of(sets.begin(), sets.end(),
                                [](const auto& state) { return state.has_own_master(); });
}

}  // namespace

void HashBuffer(const FlatBuffer& flat, Sha256& hash) {
  std::vector<std::byte> host;
  for (int64_t at = 0; at < flat.elements(); at += kChunk) {
    host.resize(static_cast<size_t>(std::min(kChunk, flat.elements() - at)) *
                ElementSize(flat.dtype()));
    flat.CopyToHost(host, at);
    hash.Update(host);
  }
}

std::string MomentsDigest(Optimizer& optimizer) {
  if (optimizer.left_out()) return *optimizer.left_out();
  Sha256 hash;
  std::vector<std::byte> host;
  ModelShare* const share = optimizer.share();
  for (Optimizer::SetState& state : optimizer.sets()) {
    for (const FlatBuffer* buffer : state.moments()) {
      for (size_t i = 0; share && i < share->tensors(); ++i) {
        if (InNoFile(share, state, i)) continue;
        host.resize(static_cast<size_t>(share->WholeEntry(i).elements) * sizeof(float));
        ReadWhole(&optimizer, state, i, *buffer, host);
        hash.Update(host);
      }
      if (share) continue;
      if (!optimizer.sharded()) {
        HashBuffer(*buffer, hash);
        continue;
      }
      const int64_t n = state.trained();
      for (int64_t at = 0; at < n; at += kChunk) {
        host.resize(static_cast<size_t>(std::min(kChunk, n - at)) * sizeof(float));
        optimizer.ReadKept(state, *buffer, at, host);
        hash.Update(host);
      }
    }
  }
  return hash.HexDigest();
}

void SaveOptimizer(const std::string& path, std::span<Optimizer::SetState> sets,
                   const Optimizer* optimizer, bool moments) {
  if (!Keeps(sets, moments)) return;
  std::vector<TensorToWrite> tensors;
  for (Optimizer::SetState& state : sets) {
    const ModelShare* const share = ShareOf(optimizer);
    for (size_t i = 0; i < TensorsOf(share, state); ++i) {
      if (InNoFile(share, state, i)) continue;
      if (moments) AddMoments(optimizer, state, i, tensors);
      if (moments && state.residual.elements() > 0)
        tensors.push_back(Whole("residual.", i, optimizer, state, &state.residual));
      else if (moments && optimizer && optimizer->Waits(InFile(share, state, i)))
        tensors.push_back(Whole("residual.", i, optimizer, state, &state.grad));
      if (!state.has_own_master()) continue;
      if (share) {
        tensors.push_back(Whole("master.", i, optimizer, state, &state.own_master));
        continue;
      }
      const TensorEntry& entry = state.set->table->entries()[i];
      std::vector<int64_t> ties;
      if (!MayHalve(state) || !FindTies(optimizer, state, entry, ties)) {
        tensors.push_back(Whole("master.", i, optimizer, state, &state.own_master));
        continue;
      }
      tensors.push_back(LowerHalves(optimizer, state, entry));
      if (!ties.empty()) tensors.push_back(Ties(entry, std::move(ties)));
    }
  }
  if (!path.empty()) {
    policy_model::WriteSafetensors(path, tensors, {{"format", std::to_string(kCheckpointFormat)}});
    return;
  }
  std::vector<std::byte> read;
  for (const TensorToWrite& tensor : tensors) {
    int64_t elements = 1;
    for (const int64_t each : tensor.shape) elements *= each;
    read.resize(static_cast<size_t>(elements) * ElementSize(tensor.dtype));
    tensor.fill(read);
  }
}

void LoadOptimizer(const std::string& path, Optimizer& optimizer, bool moments) {
  if (!moments) optimizer.ResetMoments();
  if (!Keeps(optimizer.sets(), moments)) return;
  const File file(path, optimizer);
  for (Optimizer::SetState& state : optimizer.sets()) {
    for (size_t i = 0; i < TensorsOf(optimizer.share(), state); ++i) {
      if (!Here(optimizer.share(), state, i)) continue;
      if (moments) file.ReadMoments(state, i);
      if (moments) file.ReadResidual(state, i);
      if (state.has_own_master()) file.ReadMaster(state, i);
    }
  }
  optimizer.AdoptWaiting();
}

int64_t OptimizerBytes(Optimizer& optimizer, bool moments) {
  int64_t bytes = 0;
  const ModelShare* const share = optimizer.share();
  for (const Optimizer::SetState& state : optimizer.sets()) {
    const int64_t master = state.has_own_master() ? MayHalve(state) && !share ? 2 : 4 : 0;
    for (size_t i = 0; i < TensorsOf(share, state); ++i) {
      if (InNoFile(share, state, i)) continue;
      const TensorEntry& entry = InFile(share, state, i);
      bytes += master * entry.elements;
      if (!moments) continue;
      bytes += !state.in_8_bits
                   ? 8 * entry.elements
                   : 2 * 4 * (CodeWords(entry) + kernels::MomentBlocks(entry.elements));
      if (state.residual.elements() > 0 || optimizer.Waits(entry)) bytes += 4 * entry.elements;
    }
  }
  return bytes;
}

}  // namespace plumb::learner
