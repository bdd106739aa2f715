// SHA-256 (FIPS 180-4), streaming: checkpoint manifests, summaries, provenance of code.
//
// OpenSSL computes it, with the processor's SHA instructions where there are some (1.5-2 GB/s).
// Thread safety: one thread an object. Ownership: movable, owns OpenSSL's state.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct evp_md_ctx_st;  // OpenSSL's EVP_MD_CTX

namespace plumb {

class Sha256 {
 public:
  Sha256();
  void Update(std::span<const std::byte> bytes);
  void Update(std::string_view text) { Update(std::as_bytes(std::span(text.data(), text.size()))); }
  // Of everything so far; ends the stream (Update afterwards aborts).
  std::array<uint8_t, 32> Finish();
  std::string HexDigest();  // 64 lower-case digits

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;  // null: finished
};

std::string Sha256Hex(std::string_view text);

}  // namespace plumb
