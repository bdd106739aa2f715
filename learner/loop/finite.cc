#include "learner/loop/finite.h"

#include <cstdint>
#include <cstring>

#include "common/base/error.h"
#include "kernels/block_hash.h"

namespace plumb::learner {
namespace {

// An exponent of ones is NaN or infinity.
template <class Word>
bool AllFinite(const std::byte* data, size_t count, Word exponent) {
  Word bad = 0;
  for (size_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, data + i * sizeof word, sizeof word);
    bad |= static_cast<Word>((word & exponent) == exponent);
  }
  return bad == 0;
}

bool AllFinite(DType dtype, std::span<const std::byte> bytes) {
  if (dtype == DType::kFloat32)
    return AllFinite<uint32_t>(bytes.data(), bytes.size() / 4, 0x7F800000u);
  PLUMB_CHECK(dtype == DType::kBFloat16, "a dtype that weights do not have");
  return AllFinite<uint16_t>(bytes.data(), bytes.size() / 2, uint16_t{0x7F80});
}

}  // namespace

std::optional<std::string> FirstNonFinite(const policy_model::TensorList& table, DType dtype,
                                          std::span<const std::byte> flat) {
  const size_t size = ElementSize(dtype);
  PLUMB_CHECK(flat.size() == static_cast<size_t>(table.flat_elements()) * size,
              "not a buffer of this table");
  if (AllFinite(dtype, flat)) return std::nullopt;
  for (const policy_model::TensorEntry& e : table.entries()) {
    if (!AllFinite(dtype, flat.subspan(static_cast<size_t>(e.offset) * size,
                                       static_cast<size_t>(e.elements) * size)))
      return e.name;
  }
  return "the padding between tensors";
}

namespace {

std::optional<std::string> InSet(const policy_model::ParameterSet& set) {
  const policy_model::FlatBuffer& flat = set.flat;
  if (flat.device() == Device::kCpu) {
    return FirstNonFinite(*set.table, flat.dtype(),
                          {static_cast<const std::byte*>(flat.data()), flat.bytes()});
  }
  policy_model::FlatBuffer first(flat.stream(), DType::kInt64, 1);
  kernels::Call(
      {.stream = flat.stream(), .dtype = flat.dtype()},
      kernels::FindNonFinite{
          .x = flat.data(), .n = flat.elements(), .first = static_cast<uint64_t*>(first.data())});
  int64_t at = 0;
  first.CopyToHost(std::as_writable_bytes(std::span(&at, 1)));
  if (at >= flat.elements()) return std::nullopt;
  for (const policy_model::TensorEntry& e : set.table->entries()) {
    if (at >= e.offset && at < e.offset + e.elements) return e.name;
  }
  return "the padding between tensors";
}

}  // namespace

std::optional<std::string> FirstNonFinite(const policy_model::Weights& weights) {
  for (const auto& set : weights.sets()) {
    if (const auto where = InSet(*set)) return where;
  }
  return std::nullopt;
}

}  // namespace plumb::learner
