// Structs as the bytes in which they travel: one field after the other, numbers little-endian,
// texts and lists behind their length.
//
// A struct names its fields once: `template <class Self, class Visit> static void Fields(Self& s,
// Visit visit) { visit(s.a, s.b); }`; a field may be such a struct, or a list of them.
// Both ends are of one build; a change of the fields changes the version that
// common/net/wire_socket.cc writes in front of a message.
// Thread safety: pure functions. Errors: kCorruption for bytes that end too early, go on too long
// or promise more than there is.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "common/base/error.h"

namespace plumb {

static_assert(std::endian::native == std::endian::little,
              "the wire is little-endian and written as it lies in memory");

template <class T>
concept HasFields = requires(T& t) {
  T::Fields(t, [](auto&...) {});
};

template <class T>
void PutField(const T& field, std::string& out) {
  if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
    out.append(reinterpret_cast<const char*>(&field), sizeof field);
  } else if constexpr (HasFields<T>) {
    T::Fields(field, [&](const auto&... fields) { (PutField(fields, out), ...); });
  } else {
    PutField(static_cast<uint32_t>(field.size()), out);
    if constexpr (HasFields<typename T::value_type>) {
      for (const auto& each : field) PutField(each, out);
    } else {
      out.append(reinterpret_cast<const char*>(field.data()), field.size() * sizeof(*field.data()));
    }
  }
}

template <class Struct>
std::string EncodeFields(const Struct& from) {
  std::string out;
  PutField(from, out);
  return out;
}

class FieldReader {
 public:
  FieldReader(std::string_view in, const char* what) : in_(in), what_(what) {}

  template <class T>
  void Get(T& field) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      Copy(&field, sizeof field);
    } else if constexpr (HasFields<T>) {
      T::Fields(field, [&](auto&... fields) { (Get(fields), ...); });
    } else {
      uint32_t n = 0;
      Get(n);
      if constexpr (HasFields<typename T::value_type>) {
        for (uint32_t i = 0; i < n; ++i) Get(field.emplace_back());  // no more than there is
      } else {
        Expect(n <= in_.size() / sizeof(*field.data()));
        field.resize(n);
        Copy(field.data(), n * sizeof(*field.data()));
      }
    }
  }
  void End() const {
    if (in_.empty()) return;
    throw Error(ErrorCode::kCorruption,
                std::string(what_) + " has " + std::to_string(in_.size()) + " bytes too many");
  }

 private:
  void Expect(bool is) const {
    if (!is)
      throw Error(ErrorCode::kCorruption, std::string(what_) + " promises more bytes than it has");
  }
  void Copy(void* to, size_t n) {
    Expect(n <= in_.size());
    if (n > 0) std::memcpy(to, in_.data(), n);
    in_.remove_prefix(n);
  }
  std::string_view in_;
  const char* what_;
};

template <class Struct>
Struct DecodeFields(std::string_view in, const char* what) {
  Struct to;
  FieldReader reader(in, what);
  reader.Get(to);
  reader.End();
  return to;
}

}  // namespace plumb
