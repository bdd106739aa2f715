#include "common/record/preference.h"

#include <cmath>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"

namespace plumb {
namespace {

void AppendLittleEndian(std::string& out, uint64_t v, int bytes) {
  for (int shift = 0; shift < 8 * bytes; shift += 8)
    out.push_back(static_cast<char>((v >> shift) & 0xFF));
}

[[noreturn]] void Broken(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "a preference record " + what);
}

void CheckAnswer(const std::vector<Message>& messages, const std::vector<int32_t>& tokens,
                 const std::string& name) {
  if (messages.empty() && tokens.empty()) Broken("has no " + name + " answer");
  if (!messages.empty() && messages.back().role != "assistant") {
    Broken("has a " + name + " answer that ends with the role '" + messages.back().role +
           "', not with the assistant's");
  }
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

void CheckInvariants(const PreferenceRecord& r) {
  if (!r.prompt_text.empty() && !r.prompt.empty()) Broken("has its prompt as text and as messages");
  if (r.kind != PreferenceKind::kDemonstration && r.prompt_text.empty() && r.prompt.empty() &&
      r.prompt_tokens.empty())
    Broken("has no prompt");
  CheckAnswer(r.chosen, r.chosen_tokens, "chosen");
  if (r.kind == PreferenceKind::kPair) {
    CheckAnswer(r.rejected, r.rejected_tokens, "rejected");
    if (r.chosen_tokens.empty() != r.rejected_tokens.empty())
      Broken("has tokens for one of its answers only");
  } else if (!r.rejected.empty() || !r.rejected_tokens.empty()) {
    Broken("is a judged completion, but has a rejected answer");
  }
  if (r.kind != PreferenceKind::kDemonstration &&
      r.prompt_tokens.empty() != r.chosen_tokens.empty())
    Broken("has tokens for its prompt or for its answer only");
  for (const auto* list : {&r.prompt_tokens, &r.chosen_tokens, &r.rejected_tokens}) {
    for (const int32_t token : *list) {
      if (token < 0) Broken("has a negative token");
    }
  }
  if (!std::isfinite(r.margin) || !std::isfinite(r.weight))
    Broken("has a margin or weight that is not finite");
}

}  // namespace plumb
