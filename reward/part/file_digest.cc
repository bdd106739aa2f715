#include "reward/part/file_digest.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"

namespace plumb::reward {

std::string TextSha256(std::string_view text) {
  Sha256 hash;
  hash.Update(text);
  return hash.HexDigest();
}

std::string FileSha256(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    throw Error(ErrorCode::kNotFound, std::string("cannot be read: ") + std::strerror(errno), path);
  Sha256 hash;
  char buffer[65536];
  while (file.read(buffer, sizeof buffer) || file.gcount() > 0) {
    hash.Update(std::string_view(buffer, static_cast<size_t>(file.gcount())));
  }
  if (file.bad()) throw Error(ErrorCode::kIo, "could not be read to its end", path);
  return hash.HexDigest();
}

}  // namespace plumb::reward
