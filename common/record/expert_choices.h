// Which experts of a mixture each token of an answer went through when it was generated, in few
// bytes: what the learner sends the token to again (rollout.replay_experts).
//
// Purpose: two programs that compute the same router in other orders or in bfloat16 may choose
// other experts where scores are nearly equal, and then a token's log-prob is that of another
// model. A token takes layers * per_token numbers below `experts`, each in as many bits as the
// largest needs, the lowest bit first, in all rounded up to bytes: 336 bytes of Qwen3-30B-A3B (48
// layers, 8 of 128). The numbers of a layer ascend.
// Of an answer of S tokens there are S - 1, for the last one was never computed.
// Thread safety: pure functions. Ownership: values. Errors: kCorruption for bytes that are no such
// list.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace plumb {

struct ExpertForm {
  int32_t layers = 0;     // that have experts; 0: there are no choices
  int32_t per_token = 0;  // of a layer
  int32_t experts = 0;    // of a layer

  bool there() const { return layers > 0; }
  size_t numbers() const { return static_cast<size_t>(layers) * static_cast<size_t>(per_token); }
  int bits() const;      // of a number
  size_t bytes() const;  // of a token
  bool operator==(const ExpertForm&) const = default;
};

struct ExpertChoices {
  ExpertForm form;
  std::vector<uint8_t> bytes;  // form.bytes() a token
  bool operator==(const ExpertChoices&) const = default;

  bool there() const { return form.there(); }
  size_t tokens() const { return there() ? bytes.size() / form.bytes() : 0; }
  std::span<const uint8_t> of(size_t token) const {
    return std::span(bytes).subspan(token * form.bytes(), form.bytes());
  }
};

// One token more. REQUIRES: form.numbers() values, those of a layer ascending, below form.experts.
void AppendExperts(const ExpertForm& form, std::span<const int32_t> values,
                   std::vector<uint8_t>& out);
// The numbers of one token. REQUIRES: form.bytes() bytes that CheckExperts took, room for
// form.numbers().
void UnpackExperts(const ExpertForm& form, std::span<const uint8_t> token, std::span<int32_t> out);
// Throws unless the form is one that a model can have and the bytes are those of whole tokens whose
// numbers ascend and are below form.experts.
void CheckExperts(const ExpertForm& form, std::span<const uint8_t> bytes);

}  // namespace plumb
