#include "common/base/hash/sha256.h"

#include <openssl/evp.h>

#include "common/base/error.h"
#include "common/base/text.h"

namespace plumb {

Sha256::Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  PLUMB_CHECK(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
              "OpenSSL gives no SHA-256");
}

void Sha256::Update(std::span<const std::byte> bytes) {
  PLUMB_CHECK(context_ != nullptr);
  PLUMB_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

std::array<uint8_t, 32> Sha256::Finish() {
  PLUMB_CHECK(context_ != nullptr);
  std::array<uint8_t, 32> out;
  PLUMB_CHECK(EVP_DigestFinal_ex(context_.get(), out.data(), nullptr) == 1);
  context_.reset();
  return out;
}

std::string Sha256::HexDigest() {
  const std::array<uint8_t, 32> digest = Finish();
  return Hex(std::as_bytes(std::span(digest)));
}

std::string Sha256Hex(std::string_view text) {
  Sha256 hash;
  hash.Update(text);
  return hash.HexDigest();
}

}  // namespace plumb
