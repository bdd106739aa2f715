#include "policy_model/memory/stacked_tensor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "common/base/error.h"
#include "policy_model/families/experts/exact_floats.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {
namespace {

constexpr int64_t kOfScale = 32;  // numbers of one scale, 16 bytes

struct Matrices {
  int64_t count = 1, rows = 0, columns = 0;
  int64_t elements() const { return rows * columns; }
};

Matrices Of(const TensorEntry& entry, const TensorPart& part) {
  const int64_t count = part.file_stack > 0 ? part.file_stack : 1;
  const bool vectors = entry.shape.size() == 1;  // a row each: rows of one column
  return {count, part.file_rows / count, vectors ? 1 : entry.columns()};
}

// Where row r, column c of a matrix of ours lies in the file's.
int64_t FilePlace(const TensorPart& part, const Matrices& m, int64_t r, int64_t c) {
  const int64_t half = m.rows / 2, row = !part.in_turns ? r : r < half ? 2 * r : 2 * (r - half) + 1;
  return part.by_columns ? c * m.rows + row : row * m.columns + c;
}

// Calls move(place in ours, place in the file's) for all elements, the file's order running in
// small tiles, so that neither side jumps through memory.
template <class Move>
void ForAll(const TensorPart& part, const Matrices& m, const Move& move) {
  constexpr int64_t kTile = 64;
  for (int64_t r0 = 0; r0 < m.rows; r0 += kTile) {
    for (int64_t c0 = 0; c0 < m.columns; c0 += kTile) {
      for (int64_t r = r0; r < std::min(r0 + kTile, m.rows); ++r) {
        for (int64_t c = c0; c < std::min(c0 + kTile, m.columns); ++c)
          move(r * m.columns + c, FilePlace(part, m, r, c));
      }
    }
  }
}

constexpr std::array<float, 16> kE2M1 = {0,     0.5F,  1,  1.5F,  2,  3,  4,  6,
                                         -0.0F, -0.5F, -1, -1.5F, -2, -3, -4, -6};

// Rows of the file lie one behind the other, whatever the part says of bfloat16 files.
void Dequantise(const StackedSource& source, const Matrices& m, int64_t index,
                std::span<float> file) {
  const int64_t groups = m.columns / kOfScale;
  const auto* blocks = reinterpret_cast<const uint8_t*>(source.blocks->bytes.data()) +
                       index * m.rows * groups * (kOfScale / 2);
  const auto* scales =
      reinterpret_cast<const uint8_t*>(source.scales->bytes.data()) + index * m.rows * groups;
  for (int64_t g = 0; g < m.rows * groups; ++g) {
    const float scale = std::ldexp(1.0F, scales[g] - 127);
    for (int64_t i = 0; i < kOfScale / 2; ++i) {
      const uint8_t two = blocks[g * (kOfScale / 2) + i];
      file[static_cast<size_t>(g * kOfScale + 2 * i)] = kE2M1[two & 15] * scale;
      file[static_cast<size_t>(g * kOfScale + 2 * i + 1)] = kE2M1[two >> 4] * scale;
    }
  }
}

template <class Element>
void Reorder(const TensorPart& part, const Matrices& m, std::span<const std::byte> ours,
             std::span<std::byte> file) {
  const auto* from = reinterpret_cast<const Element*>(ours.data());
  auto* to = reinterpret_cast<Element*>(file.data());
  for (int64_t i = 0; i < m.count; ++i, from += m.elements(), to += m.elements())
    ForAll(part, m, [&](int64_t here, int64_t there) { to[there] = from[here]; });
}

std::string Text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

}  // namespace

std::vector<int64_t> FileShapeOf(const TensorEntry& entry, const TensorPart& part) {
  if (entry.exact) return {entry.elements / kExactParts};
  std::vector<int64_t> shape = entry.shape;
  shape[0] = part.file_rows;
  if (part.file_stack > 0) {
    shape[0] /= part.file_stack;
    if (part.by_columns) std::swap(shape[0], shape[1]);
    shape.insert(shape.begin(), part.file_stack);
  }
  return shape;
}

StackedSource FindStack(const std::map<std::string, TensorView>& tensors, const std::string& name) {
  StackedSource out;
  const auto find = [&](const std::string& at, const TensorView*& view) {
    const auto found = tensors.find(at);
    if (found == tensors.end()) return;
    view = &found->second;
    out.names.push_back(at);
  };
  find(name, out.values);
  if (out.values) return out;
  find(name + kBlocksSuffix, out.blocks);
  find(name + kScalesSuffix, out.scales);
  return out;
}

Problem WhyUnfitStack(const StackedSource& source, const TensorEntry& entry,
                      const TensorPart& part) {
  const Matrices m = Of(entry, part);
  const auto shaped = [&](const std::string& name, const TensorView& view,
                          const std::vector<int64_t>& want) -> Problem {
    if (view.shape == want) return std::nullopt;
    return "tensor " + name + " has shape " + Text(view.shape) + ", config.json asks for " +
           Text(want);
  };
  if (source.values) {
    if (Problem problem = shaped(source.names[0], *source.values, FileShapeOf(entry, part)))
      return problem;
    if (!HoldsFloats(*source.values)) return "tensor " + source.names[0] + " holds integers";
    return std::nullopt;
  }
  if (!source.blocks || !source.scales)
    return "tensor " + part.file_tensor + " needs both " + kBlocksSuffix + " and " + kScalesSuffix;
  if (m.columns % kOfScale != 0)
    return "tensor " + source.names[0] + ": rows of " + std::to_string(m.columns) +
           " do not fall into blocks of " + std::to_string(kOfScale);
  const int64_t groups = m.columns / kOfScale;
  if (Problem problem =
          shaped(source.names[0], *source.blocks, {m.count, m.rows, groups, kOfScale / 2}))
    return problem;
  if (Problem problem = shaped(source.names[1], *source.scales, {m.count, m.rows, groups}))
    return problem;
  if (!source.blocks->packed || !source.scales->packed)
    return "tensor " + source.names[0] + " and its scales hold something else than bytes";
  return std::nullopt;
}

void ReadStacked(const StackedSource& source, const TensorEntry& entry, const TensorPart& part,
                 int64_t index, std::vector<float>& ours) {
  const Matrices m = Of(entry, part);
  std::vector<float> file(static_cast<size_t>(m.elements()));
  ours.resize(file.size());
  TensorPart order = part;
  if (source.values) {
    const size_t element = ElementSize(source.values->dtype);
    ConvertToFloat(
        source.values->bytes.data() + static_cast<size_t>(index * m.elements()) * element,
        source.values->dtype, file);
  } else {
    Dequantise(source, m, index, file);
    order.by_columns = false;
  }
  ForAll(order, m, [&](int64_t here, int64_t there) {
    ours[static_cast<size_t>(here)] = file[static_cast<size_t>(there)];
  });
}

void WriteStacked(const TensorEntry& entry, const TensorPart& part, size_t element,
                  std::span<const std::byte> ours, std::span<std::byte> file) {
  const Matrices m = Of(entry, part);
  PLUMB_CHECK(ours.size() == file.size() && (element == 2 || element == 4), "whole tensors");
  if (element == 2) Reorder<uint16_t>(part, m, ours, file);
  else Reorder<uint32_t>(part, m, ours, file);
}

}  // namespace plumb::policy_model
