// Gated linear units (Shazeer, "GLU Variants Improve Transformer", 2020) over a merged projection:
// out = act(gate) * up. Both activations are gate * sigmoid(h(gate)): h(g) = g is SiLU (SwiGLU);
// h(g) = 2 sqrt(2 / pi) (g + 0.044715 g^3) is the tanh form of GELU (GeGLU).
// Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include <type_traits>

#include "kernels/device/launch.h"

namespace plumb::kernels {

enum class Activation : uint8_t { kSilu, kGeluTanh };

struct Glu {
  static constexpr const char* kName = "Glu";
  const void* gate_up = nullptr;  // T[rows, 2 * ffn], gate first
  int64_t rows = 0, ffn = 0;
  Activation activation = Activation::kSilu;
  void* out = nullptr;  // T[rows, ffn]
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

struct GluBackward {
  static constexpr const char* kName = "GluBackward";
  const void* dout = nullptr;     // T[rows, ffn]
  const void* gate_up = nullptr;  // T[rows, 2 * ffn]
  int64_t rows = 0, ffn = 0;
  Activation activation = Activation::kSilu;
  void* dgate_up = nullptr;  // T[rows, 2 * ffn]; may be gate_up itself
  void* act = nullptr;       // T[rows, ffn], what Glu gives; may be dout; nullptr: not wanted
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// h(g) and its derivative, as above.
inline constexpr float kGeluOuter = 1.5957691216057308f;  // 2 sqrt(2 / pi)
inline constexpr float kGeluInner = 0.044715f;

template <Activation A>
PLUMB_HOST_DEVICE inline float GateExponent(float g) {
  if constexpr (A == Activation::kSilu) return g;
  else return kGeluOuter * (g + kGeluInner * g * g * g);
}

template <Activation A>
PLUMB_HOST_DEVICE inline float GateSlope(float g) {
  if constexpr (A == Activation::kSilu) return 1.0f;
  else return kGeluOuter * (1.0f + 3.0f * kGeluInner * g * g);
}

// Calls body(std::integral_constant<Activation, A>{}).
template <class Body>
void ForActivation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::kSilu: body(std::integral_constant<Activation, Activation::kSilu>{}); return;
    case Activation::kGeluTanh:
      body(std::integral_constant<Activation, Activation::kGeluTanh>{});
      return;
  }
}

}  // namespace plumb::kernels
