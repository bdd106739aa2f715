#include "replay/logprob_cache.h"

#include <string>

#include "common/error.h"
#include "common/sha256.h"

namespace plumb::replay {
namespace {

void AppendLittleEndian(std::string& out, uint64_t v, int bytes) {
  for (int shift = 0; shift < 8 * bytes; shift += 8) out.push_back(static_cast<char>((v >> shift) & 0xFF));
}

}  // namespace

Digest SequenceDigest(std::span<const int32_t> tokens, std::span<const uint8_t> loss_mask) {
  PLUMB_CHECK(tokens.size() == loss_mask.size(), "a mask has one entry a token");
  std::string bytes;
  bytes.reserve(8 + 5 * tokens.size());
  AppendLittleEndian(bytes, tokens.size(), 8);
  for (const int32_t token : tokens) AppendLittleEndian(bytes, static_cast<uint32_t>(token), 4);
  for (const uint8_t scored : loss_mask) bytes.push_back(scored ? 1 : 0);
  Sha256 hash;
  hash.Update(std::as_bytes(std::span(bytes)));
  return hash.HexDigest();
}

std::optional<std::vector<float>> StoreLogprobCache::Get(const Digest& model, const Digest& sequence) {
  auto found = store_->GetLogprobs(model, sequence);
  ++(found ? hits_ : misses_);
  return found;
}

void StoreLogprobCache::Put(const Digest& model, const Digest& sequence, std::span<const float> logprobs) {
  store_->PutLogprobs(model, sequence, logprobs);
}

}  // namespace plumb::replay
