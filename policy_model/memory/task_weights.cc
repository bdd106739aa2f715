#include "policy_model/memory/task_weights.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "common/base/error.h"

namespace plumb::policy_model {
namespace {

// `n` numbers of a set's buffer, whatever its type.
std::vector<float> Read(const ParameterSet& set, int64_t first, int64_t n) {
  std::vector<float> out(static_cast<size_t>(n));
  if (set.flat.device().is_cpu()) {
    ConvertToFloat(set.flat.at(first), set.flat.dtype(), out);
    return out;
  }
  std::vector<std::byte> bytes(out.size() * ElementSize(set.flat.dtype()));
  set.flat.CopyToHost(bytes, first);
  ConvertToFloat(bytes.data(), set.flat.dtype(), out);
  return out;
}

// The embeddings or the gate. No memory is taken on the CPU, where a step of generation reads them
// in their place; of a GPU all of them are copied at once.
using Numbers = std::array<float, kTaskDim>;
class Rows {
 public:
  Rows(const ParameterSet& set, int64_t table, size_t rows) : set_(set), table_(table) {
    if (!set.flat.device().is_cpu())
      copy_ = Read(set, table, static_cast<int64_t>(rows) * kTaskDim);
  }
  Numbers operator[](size_t row) const {
    Numbers out;
    if (copy_.empty()) {
      ConvertToFloat(set_.flat.at(table_ + static_cast<int64_t>(row) * kTaskDim), set_.flat.dtype(),
                     out);
    } else {
      std::copy_n(copy_.begin() + static_cast<std::ptrdiff_t>(row * out.size()), out.size(),
                  out.begin());
    }
    return out;
  }

 private:
  const ParameterSet& set_;
  const int64_t table_;
  std::vector<float> copy_;
};

void Put(ParameterSet& set, int64_t first, std::span<const float> values) {
  std::vector<std::byte> bytes(values.size() * ElementSize(set.flat.dtype()));
  ConvertFloat(values, set.flat.dtype(), bytes.data());
  set.flat.CopyFromHost(bytes, first);
}

}  // namespace

void TaskWeights(const ParameterSet& set, std::vector<float>& weights) {
  const size_t tasks = TasksOf(set), adapters = AdaptersOf(set);
  const TaskSlices& at = set.adapter->tasks();
  const Rows embeddings(set, at.embedding, tasks), gate(set, at.gate, adapters);
  weights.resize(tasks * adapters);
  for (size_t t = 0; t < tasks; ++t) {
    const auto row = std::span(weights).subspan(t * adapters, adapters);
    const Numbers e = embeddings[t];
    for (size_t k = 0; k < adapters; ++k) {
      const Numbers w = gate[k];
      double logit = 0;
      for (size_t i = 0; i < w.size(); ++i)
        logit += static_cast<double>(w[i]) * static_cast<double>(e[i]);
      row[k] = static_cast<float>(logit);
    }
    const float most = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (float& v : row) sum += static_cast<double>(v = std::exp(v - most));
    for (float& v : row) v = static_cast<float>(static_cast<double>(v) / sum);
  }
}

void TaskWeightsBackward(const ParameterSet& set, std::span<const float> weights,
                         std::span<const double> dweights, float* dembedding, float* dgate) {
  const size_t tasks = TasksOf(set), adapters = AdaptersOf(set);
  const TaskSlices& at = set.adapter->tasks();
  const Rows embeddings(set, at.embedding, tasks), gate(set, at.gate, adapters);
  for (size_t t = 0; t < tasks; ++t) {
    double mean = 0;
    for (size_t k = 0; k < adapters; ++k)
      mean += static_cast<double>(weights[t * adapters + k]) * dweights[t * adapters + k];
    const Numbers e = embeddings[t];
    for (size_t k = 0; k < adapters; ++k) {
      const Numbers w = gate[k];
      const auto dlogit = static_cast<float>(static_cast<double>(weights[t * adapters + k]) *
                                             (dweights[t * adapters + k] - mean));
      for (size_t i = 0; i < w.size(); ++i) {
        if (dgate) dgate[k * w.size() + i] += dlogit * e[i];
        if (dembedding) dembedding[t * w.size() + i] += dlogit * w[i];
      }
    }
  }
}

void FoldTask(const ParameterSet& set, size_t task, ParameterSet& into) {
  std::vector<float> weights;
  TaskWeights(set, weights);
  const size_t adapters = AdaptersOf(set);
  const AdapterTable& from = *set.adapter;
  const auto& to = into.adapter->entries();
  for (size_t i = 0; i < to.size(); ++i) {
    const TensorEntry& e = from.entries()[i];
    if (e.offset == from.tasks().embedding) break;  // behind the low-rank parts
    PLUMB_CHECK(e.name == to[i].name && e.shape == to[i].shape, "the same tensors: " + e.name);
    std::vector<float> values = Read(set, e.offset, e.elements);
    if (e.name.ends_with(".lora_B")) {
      const auto all = static_cast<size_t>(e.columns()), rank = all / adapters;
      for (size_t v = 0; v < values.size(); ++v)
        values[v] *= weights[task * adapters + v % all / rank];
    }
    Put(into, to[i].offset, values);
  }
  if (from.tasks().tokens < 0) return;
  // Of its tokens; its embedding and gate, of which the softmax is 1, stay 0.
  const int64_t n = from.spec().task_tokens, hidden = to.back().columns();
  Put(into, into.adapter->tasks().tokens,
      Read(set, from.tasks().tokens + static_cast<int64_t>(task) * n * hidden, n * hidden));
}

}  // namespace plumb::policy_model
