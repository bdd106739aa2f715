// A protobuf message that is written and never read: fields are appended in the order of the calls.
//
// Purpose: the few messages of TensorBoard's event files, without a compiler for protobuf and its
// library. Thread safety: one thread. Ownership: holds its bytes.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace plumb {

class ProtoMessage {
 public:
  // Integers, enums, bool; negative numbers as int64 has them: ten bytes.
  ProtoMessage& Varint(uint32_t field, uint64_t value) {
    Tag(field, 0);
    AppendVarint(value);
    return *this;
  }
  ProtoMessage& Double(uint32_t field, double value) {
    Tag(field, 1);
    AppendRaw(value);
    return *this;
  }
  ProtoMessage& Float(uint32_t field, float value) {
    Tag(field, 5);
    AppendRaw(value);
    return *this;
  }
  // Strings and bytes.
  ProtoMessage& Bytes(uint32_t field, std::string_view value) {
    Tag(field, 2);
    AppendVarint(value.size());
    bytes_.append(value);
    return *this;
  }
  ProtoMessage& Message(uint32_t field, const ProtoMessage& value) {
    return Bytes(field, value.bytes_);
  }

  const std::string& bytes() const { return bytes_; }

 private:
  void Tag(uint32_t field, uint32_t wire_type) { AppendVarint(uint64_t{field} << 3 | wire_type); }
  void AppendVarint(uint64_t v) {
    for (; v >= 0x80; v >>= 7) bytes_.push_back(static_cast<char>(v | 0x80));
    bytes_.push_back(static_cast<char>(v));
  }
  template <class T>
  void AppendRaw(T v) {
    char raw[sizeof(T)];
    std::memcpy(raw, &v, sizeof(T));
    bytes_.append(raw, sizeof(T));
  }

  std::string bytes_;
};

}  // namespace plumb
