// Where the base's weights and gradients lie in a pass whose ranks keep a part of them each.
//
// Purpose: a pass goes through the layers one after the other, so that of weights that are spread
// over ranks only those of the layer at hand, and of the next, need be here, and a layer's
// gradients can leave as soon as it is done. The transformer says how far it has come and asks
// where things are; who keeps the parts sees to it that they are there
// (learner/update/part_keeper.h). Protocol, forward: Begin; Enter and Leave of each layer, upwards;
// End. Backward: the same, downwards. Outside of layers are the head, the norm in front of it and
// the embedding: they are there from Begin to End. A layer's are there from its Enter to its Leave.
// A pass that ends with an exception is not ended: the next Begin begins anew. Thread safety: one
// thread, that of the pass. Ownership: of whoever implements it.
#pragma once

#include <cstdint>

#include "common/base/dtype.h"

namespace plumb::policy_model {

class PassParts {
 public:
  enum class Way : uint8_t { kForward, kBackward };

  virtual ~PassParts() = default;
  virtual void Begin(Way way) = 0;
  virtual void Enter(Way way, int64_t layer) = 0;
  virtual void Leave(Way way, int64_t layer) = 0;
  virtual void End(Way way) = 0;
  // All of these as a pass over so many layers calls them.
  void PassBy(Way way, int64_t layers) {
    Begin(way);
    for (int64_t i = 0; i < layers; ++i) {
      const int64_t layer = way == Way::kForward ? i : layers - 1 - i;
      Enter(way, layer);
      Leave(way, layer);
    }
    End(way);
  }

  // The base's parameter at `offset` of its flat buffer, and all behind it of the same tensor.
  virtual const void* Weight(int64_t offset) const = 0;
  // Where its gradient is added.
  virtual float* Gradient(int64_t offset) const = 0;
  // True where nothing has been added yet to the gradient of the tensor that begins at `offset` and
  // has so many elements: whoever asks writes all of it instead of adding, for what is there is not
  // 0 then. Never asked, or false: it is added to.
  virtual bool TakeEmpty(int64_t offset, int64_t elements) const {
    return offset < 0 && elements < 0;
  }
  // The same for one who writes it as it is kept, in bfloat16, each number summed in float and
  // rounded to the nearest once: where to; nullptr: that is not how it is kept, or something is
  // there. Whoever got it does not ask for this tensor in this pass again.
  virtual BFloat16* TakeNarrow(int64_t /*offset*/, int64_t /*elements*/) const { return nullptr; }
};

}  // namespace plumb::policy_model
