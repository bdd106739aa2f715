// SHA-256 (FIPS 180-4), for provenance: which code computed a score.
// Thread safety: pure functions. FileSha256 throws Error(kNotFound | kIo).
#pragma once

#include <string>
#include <string_view>

namespace plumb::reward {

std::string Sha256Hex(std::string_view bytes);
std::string FileSha256(const std::string& path);

}  // namespace plumb::reward
