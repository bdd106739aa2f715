// Structs as the bytes in which they travel: one field after the other, numbers little-endian,
// texts and lists behind their length.
//
// A struct names its fields once: `template <class Self, class Visit> static void Fields(Self& s,
// Visit visit) { visit(s.a, s.b); }`
// Both ends are of one build; a change of the fields changes the version that common/wire_socket.cc
// writes in front of a message.
// Thread safety: pure functions. Errors: kCorruption for bytes that end too early, go on too long
// or promise more than there is.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "common/error.h"

namespace plumb {

static_assert(std::endian::native == std::endian::little,
              "the wire is little-endian and written as it lies in memory");

template <class Struct>
std::string EncodeFields(const Struct& from) {
  std::string out;
  const auto put = [&](const auto& field) {
    using T = std::remove_cvref_t<decltype(field)>;
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      out.append(reinterpret_cast<const char*>(&field), sizeof field);
    } else {
      const auto n = static_cast<uint32_t>(field.size());
      out.append(reinterpret_cast<const char*>(&n), sizeof n);
      out.append(reinterpret_cast<const char*>(field.data()), field.size() * sizeof(*field.data()));
    }
  };
  Struct::Fields(from, [&](const auto&... fields) { (put(fields), ...); });
  return out;
}

template <class Struct>
Struct DecodeFields(std::string_view in, const char* what) {
  const auto expect = [&](bool is) {
    if (!is)
      throw Error(ErrorCode::kCorruption, std::string(what) + " promises more bytes than it has");
  };
  const auto take = [&](auto* to, size_t n) {
    expect(n <= in.size());
    if (n > 0) std::memcpy(to, in.data(), n);
    in.remove_prefix(n);
  };
  const auto get = [&](auto& field) {
    using T = std::remove_cvref_t<decltype(field)>;
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      take(&field, sizeof field);
    } else {
      uint32_t n = 0;
      take(&n, sizeof n);
      expect(n <= in.size() / sizeof(*field.data()));
      field.resize(n);
      take(field.data(), n * sizeof(*field.data()));
    }
  };
  Struct to;
  Struct::Fields(to, [&](auto&... fields) { (get(fields), ...); });
  if (!in.empty())
    throw Error(ErrorCode::kCorruption,
                std::string(what) + " has " + std::to_string(in.size()) + " bytes too many");
  return to;
}

}  // namespace plumb
