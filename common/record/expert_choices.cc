#include "common/record/expert_choices.h"

#include <algorithm>
#include <bit>
#include <string>

#include "common/base/error.h"

namespace plumb {
namespace {

constexpr int32_t kMaxLayers = 4096, kMaxExperts = 1024;

[[noreturn]] void Broken(const std::string& what) {
  throw Error(ErrorCode::kCorruption, "recorded experts are inconsistent: " + what);
}

// The numbers of a token, one after the other.
class Reader {
 public:
  Reader(int bits, const uint8_t* at) : bits_(bits), at_(at) {}
  int32_t Next() {
    while (held_ < bits_) {
      word_ |= uint32_t{*at_++} << held_;
      held_ += 8;
    }
    const uint32_t value = word_ & ((uint32_t{1} << bits_) - 1);
    word_ >>= bits_;
    held_ -= bits_;
    return static_cast<int32_t>(value);
  }
  uint32_t rest() const { return word_; }

 private:
  const int bits_;
  const uint8_t* at_;
  uint32_t word_ = 0;
  int held_ = 0;
};

}  // namespace

int ExpertForm::bits() const {
  return std::max(1, static_cast<int>(std::bit_width(static_cast<uint32_t>(experts - 1))));
}

size_t ExpertForm::bytes() const { return (numbers() * static_cast<size_t>(bits()) + 7) / 8; }

void AppendExperts(const ExpertForm& form, std::span<const int32_t> values,
                   std::vector<uint8_t>& out) {
  PLUMB_CHECK(values.size() == form.numbers(), "experts of every layer");
  const int bits = form.bits();
  uint32_t word = 0;
  int held = 0;
  for (const int32_t value : values) {
    word |= static_cast<uint32_t>(value) << held;
    for (held += bits; held >= 8; held -= 8, word >>= 8) out.push_back(static_cast<uint8_t>(word));
  }
  if (held > 0) out.push_back(static_cast<uint8_t>(word));
}

void UnpackExperts(const ExpertForm& form, std::span<const uint8_t> token, std::span<int32_t> out) {
  PLUMB_CHECK(token.size() == form.bytes() && out.size() == form.numbers(), "one token");
  Reader reader(form.bits(), token.data());
  for (int32_t& value : out) value = reader.Next();
}

void CheckExperts(const ExpertForm& form, std::span<const uint8_t> bytes) {
  if (form.layers < 1 || form.layers > kMaxLayers || form.experts < 1 ||
      form.experts > kMaxExperts || form.per_token < 1 || form.per_token > form.experts) {
    Broken(std::to_string(form.per_token) + " of " + std::to_string(form.experts) + " experts in " +
           std::to_string(form.layers) + " layers");
  }
  const size_t each = form.bytes();
  if (bytes.size() % each != 0) {
    Broken(std::to_string(bytes.size()) + " bytes are no whole number of tokens of " +
           std::to_string(each));
  }
  for (size_t at = 0; at < bytes.size(); at += each) {
    Reader reader(form.bits(), bytes.data() + at);
    for (int32_t layer = 0; layer < form.layers; ++layer) {
      int32_t before = -1;
      for (int32_t k = 0; k < form.per_token; ++k) {
        const int32_t value = reader.Next();
        if (value <= before || value >= form.experts)
          Broken("token " + std::to_string(at / each) + " went to expert " + std::to_string(value) +
                 " behind " + std::to_string(before) + " of " + std::to_string(form.experts));
        before = value;
      }
    }
    if (reader.rest() != 0) Broken("token " + std::to_string(at / each) + " has bits to spare");
  }
}

}  // namespace plumb
