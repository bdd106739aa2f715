// Mistral 7B and its kin: Llama, with a sliding window in every layer where the config has one.
#include "policy_model/families/config_keys.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

void Read(const ConfigKeys& keys, ModelShape& s) {
  s.window = keys.Mentions("sliding_window") ? keys.Int("sliding_window", 0) : 4096;  // null: none
}

void Write(const ModelShape& s, ConfigJson& json) {
  // the class default is 4096
  json["sliding_window"] = s.window > 0 ? ConfigJson(s.window) : ConfigJson(nullptr);
}

}  // namespace

extern const Family kMistral = {.type = "mistral",
                                .architecture = "Mistral",
                                .tied = false,
                                .rope_theta = 10000,
                                .kv_heads = 8,
                                .head_dim = 0,
                                .max_positions = 131072,
                                .norm_eps = 1e-6,
                                .names = {},
                                .read = Read,
                                .write = Write,
                                .plan = CommonPlan};

}  // namespace plumb::policy_model
