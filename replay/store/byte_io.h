// Little-endian writer and bounds-checked reader for the few structures that are not FlatBuffers.
// Thread safety: none. Errors: a reader throws kCorruption, with the place, past its end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace plumb::replay {

class ByteWriter {
 public:
  ByteWriter& U8(uint8_t v);
  ByteWriter& U32(uint32_t v);
  ByteWriter& U64(uint64_t v);
  ByteWriter& Bytes(std::string_view v);  // u32 length, bytes
  std::string Take() { return std::move(out_); }
  const std::string& bytes() const { return out_; }

 private:
  std::string out_;
};

class ByteReader {
 public:
  // `what` names the structure in errors.
  ByteReader(std::string_view bytes, std::string what) : bytes_(bytes), what_(std::move(what)) {}
  uint8_t U8();
  uint32_t U32();
  uint64_t U64();
  std::string_view Bytes(size_t max_length);          // a view into the bytes given
  std::string_view Raw(size_t n) { return Next(n); }  // the next n bytes, a view as well
  std::string_view Rest();                            // all that is left
  bool AtEnd() const { return at_ == bytes_.size(); }
  void ExpectEnd() const;  // throws when bytes are left over

 private:
  std::string_view Next(size_t n);
  std::string_view bytes_;
  std::string what_;
  size_t at_ = 0;
};

}  // namespace plumb::replay
