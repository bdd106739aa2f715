// The frames between the service and a plug-in host. Both ends are ours and of one build; a host
// that runs foreign code is still not trusted: every length is checked before it is used.
//
//   frame    "PLR1" u32 type u64 size, then size bytes; little-endian
//   kHello   u8 ok, string message                                      host -> service, once after
//            loading
//   kScore   u64 id, u64 count, count x {prompt, completion, ground_truth, extra: string; u64
//            sample}
//   kScores  u64 id, i64 returned, u64 count, count x {f64 value, i32 status, string message}
//   kFailed  u64 id, u8 failure (reward::Failure), string message       the batch could not be
//            scored
//   string   u64 size, bytes
// Thread safety: values. Errors: Cursor::ok() turns false and stays so; values read then are zero.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace plumb::reward {

// Do not change the values of existing entries.
enum class FrameType : uint32_t { kHello = 1, kScore = 2, kScores = 3, kFailed = 4 };

inline constexpr size_t kFrameHeader = 16;
inline constexpr uint64_t kMaxFrame = uint64_t{1} << 30;
inline constexpr size_t kMaxMessage = 500;

template <class T>
void Put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}
inline void PutString(std::string* out, std::string_view s) {
  Put<uint64_t>(out, s.size());
  out->append(s);
}
inline std::string Frame(FrameType type, std::string_view body) {
  std::string out = "PLR1";
  Put(&out, type);
  Put<uint64_t>(&out, body.size());
  out.append(body);
  return out;
}
// False: not one of our headers, or larger than `cap`.
inline bool ReadHeader(std::string_view header, uint64_t cap, FrameType* type, uint64_t* size) {
  if (header.size() != kFrameHeader || header.substr(0, 4) != "PLR1") return false;
  std::memcpy(type, header.data() + 4, 4);
  std::memcpy(size, header.data() + 8, 8);
  return *size <= cap;
}

class Cursor {
 public:
  explicit Cursor(std::string_view bytes) : bytes_(bytes) {}
  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && bytes_.empty(); }
  template <class T>
  T Get() {
    T value{};
    if (bytes_.size() < sizeof value) ok_ = false;
    if (ok_) {
      std::memcpy(&value, bytes_.data(), sizeof value);
      bytes_.remove_prefix(sizeof value);
    }
    return value;
  }
  std::string_view String() {
    const uint64_t size = Get<uint64_t>();
    if (size > bytes_.size()) ok_ = false;
    if (!ok_) return {};
    const std::string_view s = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return s;
  }

 private:
  std::string_view bytes_;
  bool ok_ = true;
};

}  // namespace plumb::reward
