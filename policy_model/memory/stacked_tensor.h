// Tensors of files that hold the matrices of all experts of a layer in another order than ours, or
// in four bits.
//
// Purpose: gpt-oss has [experts, in, out], gate and up taking turns; ours are [out, in], gate
// first. Its published weights are MXFP4 (Open Compute Project, "Microscaling Formats", 2023):
// NAME_blocks [experts, out, in / 32, 16] holds two E2M1 numbers a byte, the lower half first,
// NAME_scales [experts, out, in / 32] a power of two for 32 of them, 2^(s - 127). Thread safety:
// pure functions. Ownership: views are borrowed. Errors: Problem says why a tensor is not what the
// table asks for.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/base/problem.h"
#include "policy_model/families/tensor_table.h"
#include "policy_model/files/safetensors.h"

namespace plumb::policy_model {

inline constexpr const char* kBlocksSuffix = "_blocks";
inline constexpr const char* kScalesSuffix = "_scales";

inline bool HoldsFloats(const TensorView& view) {
  return !view.packed && view.dtype != DType::kInt32 && view.dtype != DType::kInt64;
}

// Where a file has a stack of matrices.
struct StackedSource {
  const TensorView* values = nullptr;  // or
  const TensorView *blocks = nullptr, *scales = nullptr;
  // The names of what is there.
  std::vector<std::string> names;
};

// Whether the file's order is another than ours, so that it goes through the functions below.
inline bool IsStacked(const TensorPart& part) { return part.by_columns || part.in_turns; }

// The shape of the file's tensor. Of ours the part's matrices are [rows, columns].
std::vector<int64_t> FileShapeOf(const TensorEntry& entry, const TensorPart& part);

// The matrices of `part` under the name `name`, or in four bits under the names made of it.
StackedSource FindStack(const std::map<std::string, TensorView>& tensors, const std::string& name);
Problem WhyUnfitStack(const StackedSource& source, const TensorEntry& entry,
                      const TensorPart& part);

// Matrix `index` as ours, in floats.
void ReadStacked(const StackedSource& source, const TensorEntry& entry, const TensorPart& part,
                 int64_t index, std::vector<float>& ours);
// All matrices from ours, which are elements of `element` bytes, to the file's order.
void WriteStacked(const TensorEntry& entry, const TensorPart& part, size_t element,
                  std::span<const std::byte> ours, std::span<std::byte> file);

}  // namespace plumb::policy_model
