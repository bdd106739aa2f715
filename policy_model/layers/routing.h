// What the experts of a model are told besides weights and tokens, and what they tell of their
// load.
//
// Purpose: one of these belongs to a transformer, and every stage of experts sees it through its
// pass. Options matter to passes that a backward follows alone: scoring and generation drop
// nothing.
// Losses of a layer, each over the layers that have experts: aux_coef E sum_e f_e P_e with f_e the
// experts e chosen a token and P_e the mean share of e (Fedus et al., "Switch Transformers", 2021;
// K where the load is even), z_coef mean lse^2 (Zoph et al., "ST-MoE", 2022).
// Thread safety: of its transformer. Ownership: values; `given` and `taken_there` are borrowed for
// a pass.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "common/base/error.h"

namespace plumb::policy_model {

struct RoutingOptions {
  double aux_coef = 0, z_coef = 0;
  // An expert takes floor(equal load * (capacity + capacity_noise * u)) tokens of a pass, u uniform
  // in (0, 1); 0: all.
  double capacity = 0, capacity_noise = 0;
  uint64_t seed = 0;
};

// Sums over the passes of training since they were last taken.
struct LayerLoad {
  int64_t layer = 0;
  std::vector<int64_t> tokens;  // [E] that chose the expert, dropped ones too
  int64_t rows = 0;             // tokens
  int64_t dropped = 0;          // of tokens at experts
  int64_t given = 0;            // choices of tokens whose experts were given,
  int64_t otherwise = 0;        // and of these what the router would not have chosen
  double entropy = 0;           // of the router's shares, nats, summed over rows
  double aux = 0, z = 0;        // without their coefficients, times the rows of their passes

  // Largest load over the mean one.
  double MaxOverMean() const {
    int64_t most = 0, all = 0;
    for (const int64_t n : tokens) {
      most = n > most ? n : most;
      all += n;
    }
    return all == 0 ? 0
                    : static_cast<double>(most) * static_cast<double>(tokens.size()) /
                          static_cast<double>(all);
  }
};

class ExpertVisits;

struct Routing {
  RoutingOptions options;
  // Where ranks share out the experts (expert_visits.h): how rows get to them. Borrowed.
  ExpertVisits* visits = nullptr;
  double share = 1;             // of an update's tokens, that of this pass: weighs its losses
  uint64_t pass = 0;            // address of the capacity's draws
  std::vector<LayerLoad> load;  // of the layers that have experts, in order
  // [tokens, layers with experts, K] ascending; -1 first: to be chosen; nullptr: all are
  const int32_t* given = nullptr;
  std::vector<int32_t> taken;  // the same of what the last pass took; on the CPU
  // On a GPU `given` lies there, and this is the same in the host's memory; what a step of
  // generation takes is written to `taken_there`, in the GPU's memory.
  const int32_t* given_here = nullptr;
  int32_t* taken_there = nullptr;

  // Of layers on a GPU, which add their load up there: each adds what it has to the load once that
  // is taken, so that no pass waits for it.
  std::vector<std::function<void(LayerLoad&)>> late;

  std::vector<LayerLoad> TakeLoad() {
    for (size_t i = 0; i < late.size(); ++i) {
      if (late[i]) late[i](load[i]);
    }
    return std::exchange(load, std::vector<LayerLoad>(load.size()));
  }
  size_t Choices(int64_t rows, int64_t per_token) const {
    return static_cast<size_t>(rows * per_token) * load.size();
  }
  // Before a pass of `rows` tokens. `there`: of a GPU that has the experts' copy, or nullptr.
  void Begin(std::span<const int32_t> experts, int64_t rows, int64_t per_token, bool on_cpu,
             const int32_t* there) {
    const size_t all = Choices(rows, per_token);
    PLUMB_CHECK(experts.empty() || experts.size() == all, "experts of every token");
    given_here = experts.empty() ? nullptr : experts.data();
    given = on_cpu ? given_here : there;
    taken.resize(on_cpu ? all : 0);
    taken_there = nullptr;
  }
};

}  // namespace plumb::policy_model
