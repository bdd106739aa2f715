#include "configs/checks/unusual_values.h"

#include "configs/value_text.h"

namespace plumb::configs {

void SayUnusual(const Config& config, std::vector<std::string>& notes) {
  struct Rate {
    const char* option;
    double value;
    bool trains;
  };
  const Rate rates[] = {{"optimizer.learning_rate", config.optimizer.learning_rate, true},
                        {"optimizer.muon_learning_rate", config.optimizer.muon_learning_rate,
                         config.optimizer.name == OptimizerName::kMuon},
                        {"critic.learning_rate", config.critic.learning_rate,
                         config.algorithm.name == AlgorithmName::kPpo},
                        {"sft.learning_rate", config.sft.learning_rate, config.sft.steps > 0}};
  for (const Rate& rate : rates) {
    if (!rate.trains || rate.value <= 1) continue;
    notes.push_back(std::string(rate.option) + " = " + NumberText(rate.value) +
                    " is above 1, which breaks any model; usual rates are 1e-6 to 1e-3 (" +
                    NumberText(rate.value * 1e-6) + "?)");
  }
}

}  // namespace plumb::configs
