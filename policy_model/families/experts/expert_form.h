// The form in which choices of a model's experts are recorded (common/record/expert_choices.h).
//
// Thread safety: pure function.
#pragma once

#include "common/record/expert_choices.h"
#include "policy_model/families/model_shape.h"

namespace plumb::policy_model {

// Not there: the model is dense.
inline ExpertForm ExpertFormOf(const ModelShape& shape) {
  const ExpertsShape& experts = shape.experts;
  ExpertForm form = {.per_token = static_cast<int32_t>(experts.per_token),
                     .experts = static_cast<int32_t>(experts.count)};
  for (int64_t l = 0; l < shape.layers; ++l) form.layers += experts.of(l) ? 1 : 0;
  return form;
}

}  // namespace plumb::policy_model
