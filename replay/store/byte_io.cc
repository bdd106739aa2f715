#include "replay/store/byte_io.h"

#include <limits>

#include "common/base/error.h"

namespace plumb::replay {
namespace {

void AppendLittleEndian(std::string& out, uint32_t v) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>((v >> shift) & 0xFF));
}

}  // namespace

ByteWriter& ByteWriter::U8(uint8_t v) {
  out_.push_back(static_cast<char>(v));
  return *this;
}
ByteWriter& ByteWriter::U32(uint32_t v) {
  AppendLittleEndian(out_, v);
  return *this;
}
ByteWriter& ByteWriter::U64(uint64_t v) {
  return U32(static_cast<uint32_t>(v)).U32(static_cast<uint32_t>(v >> 32));
}
ByteWriter& ByteWriter::Bytes(std::string_view v) {
  PLUMB_CHECK(v.size() <= std::numeric_limits<uint32_t>::max(),
              "a field of " + std::to_string(v.size()) + " bytes");
  U32(static_cast<uint32_t>(v.size()));
  out_.append(v);
  return *this;
}

std::string_view ByteReader::Next(size_t n) {
  if (n > bytes_.size() - at_) {
    throw Error(ErrorCode::kCorruption,
                "ends after " + std::to_string(bytes_.size()) + " bytes, in the middle of a field",
                what_);
  }
  const std::string_view part = bytes_.substr(at_, n);
  at_ += n;
  return part;
}
uint8_t ByteReader::U8() { return static_cast<uint8_t>(Next(1)[0]); }
uint32_t ByteReader::U32() {
  const std::string_view b = Next(4);
  uint32_t v = 0;
  for (size_t i = 4; i-- > 0;) v = (v << 8) | static_cast<uint8_t>(b[i]);
  return v;
}
uint64_t ByteReader::U64() {
  const uint64_t low = U32();
  return low | (uint64_t{U32()} << 32);
}
std::string_view ByteReader::Bytes(size_t max_length) {
  const size_t n = U32();
  if (n > max_length) {
    throw Error(ErrorCode::kCorruption,
                "a field claims " + std::to_string(n) + " bytes, the bound is " +
                    std::to_string(max_length),
                what_);
  }
  return Next(n);
}
std::string_view ByteReader::Rest() { return Next(bytes_.size() - at_); }
void ByteReader::ExpectEnd() const {
  if (!AtEnd())
    throw Error(ErrorCode::kCorruption,
                std::to_string(bytes_.size() - at_) + " bytes are left over", what_);
}

}  // namespace plumb::replay
