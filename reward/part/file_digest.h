// Provenance of reward code: SHA-256 of texts and files, lower-case hex.
// Thread safety: pure functions. Errors: FileSha256 throws Error(kNotFound | kIo).
#pragma once

#include <string>
#include <string_view>

namespace plumb::reward {

std::string TextSha256(std::string_view text);
std::string FileSha256(const std::string& path);

}  // namespace plumb::reward
