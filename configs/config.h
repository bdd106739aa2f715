// Every option of a recipe, each named once.
//
// Purpose: a TOML recipe becomes one typed Config. A field's name, default, unit and advice stand
// in its struct's Visit() and nowhere else: parsing, `--set a.b=c`, `plumb config show`, aliases
// and the stored resolved config all walk it.
// Thread safety: plain values; Load* are pure functions of their inputs.
// Errors: all problems of a recipe are reported at once in one Error(kInvalidArgument), each with
// file:line, an unknown key with the nearest known name. Nothing is clamped silently.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "configs/choices.h"

namespace plumb::configs {

// Of a number. `above`: `low` itself is outside.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool above = false;
};
constexpr Range AtLeast(double low) { return {.low = low}; }
constexpr Range Within(double low, double high) { return {.low = low, .high = high}; }
constexpr Range Positive() { return {.low = 0, .above = true}; }

// What a field says about itself; passed to every visitor.
struct FieldInfo {
  constexpr FieldInfo(const char* field, const char* of, const char* what, const char* others = "",
                      Range allowed = {})
      : name(field), unit(of), advice(what), aliases(others), range(allowed) {}
  constexpr FieldInfo(const char* field, const char* of, const char* what, Range allowed)
      : FieldInfo(field, of, what, "", allowed) {}

  const char* name;     // TOML key
  const char* unit;     // "tokens", "s", "1", "name", ...
  const char* advice;   // what it does, when to change it; the names of a Choice stand before it by
                        // themselves
  const char* aliases;  // space-separated names users bring from other systems
  Range range;
};

// [run]
struct RunConfig {
  uint64_t seed = 1;
  std::string out;  // empty: runs/<recipe name>
  Roles roles = Roles::kLocal;
  Schedule schedule = Schedule::kSync;
  int64_t max_staleness = 0;      // versions; must be 0 under sync
  int64_t steps = 100;            // train steps (policy updates batches)
  int64_t checkpoint_every = 50;  // steps; 0: only at the end
  int64_t keep_checkpoints = 1;
  int64_t threads = 0;         // 0: one per core
  std::string device = "cpu";  // cpu | cuda | cuda:N
  bool exact = true;           // on a GPU: same bits whatever is computed beside
  double memory_gb = 0;        // of the device that the run may take; 0: what is free
  int64_t actors = 1;          // processes of that role
  int64_t reward_workers = 1;
  // any wait longer than this ends the run with what it waited for
  double stall_seconds = 300;
  // Learner processes (ranks) and how they share the work: "dp=2,tp=2"; empty: one.
  std::string parallel;
  int64_t zero = 1;  // 0 | 1 | 2 | 3: what data-parallel ranks keep a part of (ZeRO)
  GradientWire gradient_wire = GradientWire::kFloat32;
  // Recipes that this one runs one after the other, each from the model of the one before.
  std::vector<std::string> stages;
  std::string listen;  // cluster: tcp://host:port that roles join
  std::string keys;    // cluster: folder of CURVE keys
  int64_t relay = 0;  // cluster: actors that an actor hands weights on to; 0: the head sends to all
  bool weight_deltas = false;  // cluster: only blocks of weights that changed are sent
  template <class V>
  void Visit(V& v);
};

// [checkpoint]: what stands in one
struct CheckpointConfig {
  KeepOptimizer optimizer = KeepOptimizer::kUntilEnd;
  int64_t optimizer_every = 1;  // checkpoints from one that holds the optimizer's state to the next
  bool background = true;       // written while the run goes on
  template <class V>
  void Visit(V& v);
};

// [model]
struct ModelConfig {
  std::string path;               // HF directory; empty: from scratch with the fields below
  DType dtype = DType::kFloat32;  // weights and activations of forward and backward
  Products products = Products::kDType;
  int64_t layers = 4;
  int64_t hidden = 128;
  int64_t heads = 4;
  int64_t kv_heads = 4;
  int64_t ffn = 512;
  int64_t max_positions = 512;
  bool tied = true;
  double rope_theta = 10000;
  double init_std = 0.02;
  Vocabulary vocabulary = Vocabulary::kArithmetic;  // built-in tokenizer of a from-scratch model
  std::vector<std::string> norms = {"rmsnorm"};  // of the layers in order, repeated from the first
  int64_t window = 0;        // tokens that a token sees, itself included; 0: all
  int64_t global_every = 0;  // under a window: every so manyth position is seen by all; 0: none
  AttentionKind attention = AttentionKind::kFull;
  int64_t kv_rank = 64;    // latent: numbers a token in the cache besides rope_dim
  int64_t query_rank = 0;  // latent: of the queries; 0: not compressed
  int64_t rope_dim = 16;   // latent: rotated part of a head
  bool sinks = false;      // a learned logit a head, which takes weight and gives nothing
  // Under a window: so many further tokens, which a learned gate chooses, are seen besides.
  int64_t gate_top_k = 0;
  // What the layers in order see, repeated: "local" (model.window), "global" (all), "memory" (rows
  // of memory_table besides); empty: all as the options above say.
  std::vector<std::string> scales;
  std::string memory_table;  // safetensors file with keys and values to retrieve from
  template <class V>
  void Visit(V& v);
};

// [experts]: the feed-forward part of a new model as a mixture of experts
struct ExpertsConfig {
  int64_t count = 0;  // experts a layer; 0: one dense feed-forward part
  int64_t per_token = 2;
  int64_t shared = 0;               // experts that every token has besides
  bool shared_gate = false;         // what they give is weighed by a sigmoid
  std::vector<std::string> widths;  // of the experts in order, repeated; empty: model.ffn
  int64_t first_dense = 0;          // first layers that stay dense
  Router router = Router::kSoftmax;
  bool renormalize = true;
  double temperature = 1.0;
  int64_t groups = 1;  // of experts; a token's experts come from groups_per_token of them
  int64_t groups_per_token = 1;
  double bias_rate = 0;  // of the balancing bias, a step; 0: off
  double aux_coef = 0;   // of the balancing loss
  double z_coef = 0;     // of the router's z loss
  double capacity = 0;   // of an expert, in shares of an equal load; 0: nothing is dropped
  double capacity_noise = 0;
  int64_t sync_every = 1;  // updates from one sum of the experts' gradients over ranks to the next
  template <class V>
  void Visit(V& v);
};

// [policy]: what of the model is trained
struct PolicyConfig {
  Adapter adapter = Adapter::kNone;
  int64_t rank = 8;
  double alpha = 16;  // what the adapter adds is scaled by alpha / rank
  // Modules by the last part of their names, or all of the layers.
  std::vector<std::string> targets = {"all-linear"};
  bool rslora = false;  // scaled by alpha / sqrt(rank) instead
  double dropout = 0;   // of what goes into the adapter, in training
  // "pattern=number" each, of module names; the first that matches counts
  std::vector<std::string> rank_pattern;
  std::vector<std::string> alpha_pattern;
  std::vector<std::string> learning_rates;  // "pattern=factor" of optimizer.learning_rate
  std::vector<std::string> frozen;          // patterns of parameters that are not trained
  // Several adapters on one base, weighed by a softmax over a learned embedding of the row's task.
  int64_t adapters = 1;
  std::vector<std::string> tasks;  // their names, as data.map's column "task" has them
  int64_t task_tokens = 0;         // learned tokens of a task put in front of its prompts
  template <class V>
  void Visit(V& v);
};

// [data]
struct DataConfig {
  std::string train;  // file, or "arithmetic" for generated problems; offline training: also the
                      // folder of a store
  // offline training from a store: which of its preference datasets; empty: the only one
  std::string dataset;
  std::string eval;            // file, or "arithmetic"; empty: no evaluation
  int64_t eval_prompts = 200;  // at most so many rows of `eval`; 0: all
  int64_t eval_skip = 0;       // usable rows of `eval` passed over first: one file for both
  std::map<std::string, std::string> map;  // prompt=column, answer=column, ...
  std::string system_prompt;               // put in front of every prompt as a system message
  // Text (of a prompt, a pair, a demonstration) goes through the model's chat template, where it
  // has one; messages always do.
  bool chat_template = true;
  std::string prompt_suffix;  // appended to the user's text, e.g. how to format the answer
  int64_t max_prompt_tokens = 1024;
  OverlongPolicy overlong = OverlongPolicy::kDrop;
  bool shuffle = true;
  int64_t limit = 0;              // rows; 0: all
  int64_t arithmetic_digits = 2;  // generated sums of two numbers with up to so many digits
  int64_t arithmetic_sft_examples = 200;
  template <class V>
  void Visit(V& v);
};

// [replay]: what happens to rollouts behind the step that they were made for
struct ReplayConfig {
  int64_t keep_steps = 0;  // steps of rollouts kept behind the oldest checkpoint; -1: all
  PromptSampler prompts = PromptSampler::kPasses;
  int64_t groups_per_step = 0;  // groups of earlier steps added to each batch; 0: none
  SamplerKind sampler = SamplerKind::kUniform;  // of those groups
  int64_t max_age_steps = 4;                    // older groups are not drawn
  int64_t max_times_sampled = 0;                // 0: no bound
  int64_t max_groups = 0;                       // drawn from at most so many; 0: no bound
  Evict evict = Evict::kOldest;                 // who leaves when there are more
  double samples_per_insert = 1.0;              // draws for each group generated, over the run
  int64_t min_groups = 1;                       // groups generated before the first draw
  // versions that a drawn group may be behind; 0: only max_age_steps bounds it
  int64_t max_staleness = 0;
  double alpha = 1.0;     // prioritised
  double easiest = 0.25;  // curriculum
  double ramp = 0.5;
  double floor = 0.1;          // difficulty
  std::string stratum;         // column of the data
  std::string difficulty;      // column of the data
  int64_t history_steps = 64;  // difficulty: steps whose results count
  template <class V>
  void Visit(V& v);
};

// [sft]: supervised warm start before version 0, or the whole training (algorithm.name = "sft")
struct SftConfig {
  int64_t steps = 0;   // 0: no warm start
  int64_t batch = 64;  // sequences per step
  double learning_rate = 1e-3;
  LrSchedule lr_schedule = LrSchedule::kCosine;
  double warmup_fraction = 0.03;
  double min_lr_fraction = 0.0;
  double weight_decay = 0.0;
  // file of demonstrations; empty: those of data.train (generated)
  std::string data;
  int64_t eval_every = 20;  // steps between held-out losses
  // held-out losses without a new low that end the warm start; 0: all steps
  int64_t patience = 0;
  // algorithm.name = "sft": last rows of the file, never trained on; -1: 100, of a smaller file a
  // tenth
  int64_t heldout = -1;
  int64_t max_tokens = 1024;  // longer sequences: data.overlong says
  // "source=share" in order: the kinds of demonstrations (their column "source"), each from the end
  // of the one before until that share of the steps; empty: all mixed.
  std::vector<std::string> curriculum;
  double syntax_penalty = 0;  // weight of the brackets of code that the model would not write
  template <class V>
  void Visit(V& v);
};

// [rollout]
struct RolloutConfig {
  int64_t prompts_per_step = 32;
  int64_t samples_per_prompt = 8;  // group size G
  int64_t max_new_tokens = 64;
  double temperature = 1.0;
  int64_t top_k = 0;  // 0: off
  double top_p = 1.0;
  double min_p = 0.0;
  std::vector<std::string> stop;  // stop strings besides the end-of-sequence token
  int64_t max_batch = 256;        // sequences decoded together
  int64_t page_tokens = 16;       // KV slots per page
  int64_t kv_budget_mb = 2048;
  int64_t prefill_tokens = 2048;  // token budget of one prefill step
  KvType kv_type = KvType::kModel;
  bool replay_experts = false;  // the learner sends a token to the experts that the actor chose
  std::string device;           // of the actors; empty: run.device
  int64_t tp = 1;               // processes that compute an actor's model together
  bool share_prefixes = true;   // prompts that begin alike share those pages
  KvAfterUpdate kv_after_update = KvAfterUpdate::kKeep;  // of answers that run on
  template <class V>
  void Visit(V& v);
};

// [[reward.parts]]
struct RewardPartConfig {
  std::string name;  // part name in metrics
  std::string kind;  // answer | format | length | plugin | program | ...
  double weight = 1.0;
  std::string path;               // shared object, program or file
  std::vector<std::string> args;  // of a program
  double timeout_s = 10;          // wall clock per call
  int64_t memory_mb = 2048;       // address space of the host process
  int64_t workers = 1;            // host processes
  int64_t target_tokens = 0;      // length: full score up to here
  int64_t max_tokens = 0;         // length: 0 from here on
  // Services: kind = "zmq" | "http" | "judge"
  std::string endpoint;          // tcp://host:port, ipc:///path, http(s)://host:port/path
  HttpApi api = HttpApi::kNone;  // http
  // slime: the number's name when the reply is an object; empty: score
  std::string reply_key;
  // zmq: the worker's public key or its .pub file; empty: no keys
  std::string server_key;
  std::string client_key;  // zmq: our .key file
  std::string model;       // judge: as the endpoint calls it
  // judge: text with {prompt}, {completion}, {ground_truth}; empty: the built-in one
  std::string judge_prompt;
  // judge: its first group is the number; empty: the last number of the text
  std::string score_regex;
  double scale = 10;  // judge: the number that means 1
  // environment variable that holds the key of http and judge; never logged
  std::string api_key_env;
  template <class V>
  void Visit(V& v);
};

// [reward]
struct RewardConfig {
  std::vector<RewardPartConfig> parts;
  OnFailure on_failure = OnFailure::kDropGroup;  // after the retries
  int64_t retries = 1;
  double penalty = 0.0;  // the reward of an unscored answer under on_failure = penalty
  bool allow_unsandboxed = false;
  template <class V>
  void Visit(V& v);
};

// [environment]: conversations of several turns
struct EnvironmentConfig {
  EnvironmentKind kind = EnvironmentKind::kNone;
  std::string path;                // program, shared object or Python file
  std::vector<std::string> args;   // of a program
  std::string name;                // python: class or function in the file; empty: the only one
  std::string endpoint;            // http
  std::vector<std::string> tools;  // calculator, python, search; python: functions of the file
  std::string corpus;              // search: file of texts
  ToolForm tool_form = ToolForm::kAuto;
  int64_t max_turns = 8;         // of the policy
  int64_t reply_tokens = 256;    // of the environment in a turn; longer ones are cut
  double timeout_s = 10;         // wall clock of a call
  double episode_seconds = 300;  // of a conversation
  int64_t memory_mb = 2048;      // address space of an environment's process
  int64_t workers = 1;           // processes
  std::string listen;            // agent: tcp address of the endpoint; empty: the loopback
  template <class V>
  void Visit(V& v);
};

// [algorithm]
struct AlgorithmConfig {
  AlgorithmName name = AlgorithmName::kGrpo;  // sets defaults below
  Advantage advantage = Advantage::kGroup;
  Objective objective = Objective::kClip;
  RatioLevel ratio = RatioLevel::kToken;
  bool advantage_std = true;  // divide by the group's standard deviation
  StdOver std_over = StdOver::kGroup;
  RewardAggregation reward_aggregation = RewardAggregation::kSumThenNormalize;
  int64_t pass_k = 4;  // advantage = pass_k
  double advantage_eps = 1e-4;
  bool skip_equal_groups = true;  // groups of equal reward: left out but for KL and entropy
  int64_t refill_rounds = 0;      // further prompts in place of such a group; 0: off
  double clip_low = 0.2;
  double clip_high = 0.2;
  double dual_clip = 0;  // 0: off, else c > 1
  double kl_coef = 0;
  KlEstimator kl_estimator = KlEstimator::kK3;
  bool kl_bias_correction = false;   // the estimate times the ratio
  bool kl_straight_through = false;  // its value with the gradient of k2
  KlPlacement kl_placement = KlPlacement::kLoss;
  Aggregation aggregation = Aggregation::kToken;
  double sapo_tau_positive = 1.0;  // sapo: of advantages above 0
  double sapo_tau_negative = 1.05;
  std::vector<std::string> vespo = {"2", "3", "3", "2"};  // k and lambda above 0, then below
  double dro_beta = 0.1;
  double cov_share = 0.0002;  // clip_cov, kl_cov: share of the tokens
  double cov_low = 1;         // clip_cov: covariances within these bounds
  double cov_high = 5;
  double cov_kl_coef = 1;               // kl_cov
  double off_policy_sequence_mask = 0;  // nats a token; answers of lower return beyond it; 0: off
  bool mask_truncated = false;          // answers that were cut do not train
  double entropy_quantile = 1;          // share of the tokens, those of highest entropy, that train
  double entropy_target = 0;            // nats; entropy_coef follows it; 0: fixed
  int64_t reference_sync_every = 0;     // steps; 0: never
  double reference_mix = 0.6;           // share of the policy in the new reference
  double entropy_coef = 0;
  int64_t epochs = 1;       // passes over a batch
  int64_t minibatches = 1;  // updates a pass
  // truncated importance sampling between actor and learner log-probs; 0: off
  double tis_cap = 2.0;
  double tis_floor = 0;  // of the masking modes
  OffPolicy off_policy = OffPolicy::kTokenTruncate;
  bool recompute_logprobs = false;  // old log-probs by the learner instead of the actor's
  // mean |actor - learner| log-prob, learner/algorithms/logprob_gate.h; nats
  double logprob_gate = 0.05;
  // PPO
  double gamma = 1.0;             // discount per token
  double lam = 0.95;              // of generalized advantage estimation
  bool whiten_advantages = true;  // over all tokens of a batch
  KlController kl_controller = KlController::kFixed;
  double kl_target = 0;       // nats per token; adaptive
  double kl_horizon = 10000;  // answers; adaptive
  RewardNormalization reward_normalize =
      RewardNormalization::kOff;  // by running moments of the score
  double reward_clip = 0;         // 0: off, else scores end in [-reward_clip, reward_clip]
  template <class V>
  void Visit(V& v);
};

// [critic]: the value function of PPO
struct CriticConfig {
  CriticMode mode = CriticMode::kOwn;
  // own: folder of a model with a scalar head; empty: the policy's trunk
  std::string path;
  double learning_rate = 1e-5;  // peak; follows optimizer.lr_schedule
  double value_clip = 0.2;      // 0: off
  double vf_coef = 0.5;         // shared: weight of the value loss beside the policy's
  int64_t warmup_steps = 0;     // first train steps that update the critic alone
  template <class V>
  void Visit(V& v);
};

// [preference]: training on pairs without rollouts (algorithm.name = "dpo" or "reward_model");
// data.train names the file
struct PreferenceConfig {
  PreferenceLossKind loss = PreferenceLossKind::kSigmoid;  // dpo
  double beta = 0.1;
  double label_smoothing = 0;  // cDPO (sigmoid) and robust
  double gamma = 0.5;          // simpo: target margin
  bool length_normalize = false;
  // "loss=weight" each, added up; empty: `loss` alone
  std::vector<std::string> losses;
  Divergence divergence = Divergence::kReverseKl;
  double divergence_alpha = 1;
  double ld_alpha = 1;  // weight of what an answer is longer than the other one
  double discopop_tau = 0.05;
  double desirable_weight = 1;  // kto: of the loss of desirable completions
  double undesirable_weight = 1;
  double centering = 0;   // reward_model: weight of (r_c + r_r)^2
  bool weighted = false;  // a pair counts by its probability under the policy (WPO)
  int64_t batch = 16;     // pairs an update
  int64_t heldout =
      -1;  // last pairs of the file, never trained on; -1: 100, of a smaller file a tenth
  int64_t max_tokens = 1024;    // longer sequences: data.overlong says
  std::string reference_cache;  // folder of a store; "": the run's own
  template <class V>
  void Visit(V& v);
};

// [distill]: a teacher beside the rewards, or beside the demonstrations of algorithm.name = "sft".
struct DistillConfig {
  // Folders or addresses of `plumb serve`; "dataset=folder" where each dataset has its own.
  std::vector<std::string> teachers;
  Distance distance = Distance::kReverseK1;
  double coef = 1;         // weight of the teacher's term
  bool only = false;       // the rewards' advantages are left out
  double beta = 0.5;       // jsd: share of the teacher in the mixture
  int64_t top_k = 64;      // forward: the teacher's likeliest tokens
  double temperature = 1;  // of both distributions
  // Rows whose answer the teacher gives a mean probability below it are left out, but for a share.
  double confidence = 0;
  double unsure_share = 0.3;
  // sft: phases by their steps; the rest of the steps is without them.
  int64_t feature_steps = 0;  // hidden states, by L2
  double boundary_coef = 0;   // decision-boundary term of the logits
  double perturb = 0;         // adversarial perturbation of embeddings, a share of their norm
  double student_share = 1;   // of the batches with the student's own answers; others: data's
  template <class V>
  void Visit(V& v);
};

// [optimizer]
struct OptimizerConfig {
  OptimizerName name = OptimizerName::kAdamW;
  double muon_learning_rate = 0.02;  // peak of the matrices inside the layers
  double muon_momentum = 0.95;
  double learning_rate = 1e-6;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.01;
  double grad_clip = 1.0;  // global norm; 0: off
  double clip_value = 0;   // of each gradient, before the norm; 0: off
  LrSchedule lr_schedule = LrSchedule::kConstant;
  double warmup_fraction = 0.0;
  double min_lr_fraction = 0.0;
  double decay_fraction = 0.2;        // wsd: last share of the steps, in which the rate falls
  int64_t ramp_steps = 0;             // steps until a batch is whole; 0: from the first
  double ramp_start = 0.25;           // share of a batch in the first step
  int64_t micro_batch_tokens = 4096;  // token budget of one packed forward and backward
  int64_t max_skipped_in_a_row = 3;
  Masters masters = Masters::kFloat32;  // bfloat16
  Moments moments = Moments::kFloat32;
  Gradients gradients = Gradients::kFloat32;
  Recompute recompute = Recompute::kAuto;
  bool offload = false;            // moments and masters in the host's memory
  double loss_scale = 65536;       // model.products = "fp16": first scale of the loss, and largest
  int64_t loss_scale_steps = 200;  // without an overflow until the scale is doubled
  template <class V>
  void Visit(V& v);
};

// [eval]
struct EvalConfig {
  int64_t every = 0;    // steps; 0: only before and after
  int64_t samples = 1;  // answers a held-out prompt
  // reward part whose value >= 0.5 counts as solved; empty: the first
  std::string success_part;
  double bar = 0;          // share solved at the end below which the run fails; 0: none
  bool keep_best = false;  // the checkpoint with the highest evaluation stays, as RUN/best
  template <class V>
  void Visit(V& v);
};

// [metrics]
struct MetricsConfig {
  bool tensorboard = true;
  int64_t prometheus_port = 0;  // 0: off; loopback only
  int64_t samples_every = 10;   // steps between entries of samples.jsonl
  SampleLog samples = SampleLog::kSome;
  Follow follow = Follow::kNone;  // a tracker that is told the metrics
  template <class V>
  void Visit(V& v);
};

struct Config {
  RunConfig run;
  CheckpointConfig checkpoint;
  ModelConfig model;
  ExpertsConfig experts;
  PolicyConfig policy;
  DataConfig data;
  SftConfig sft;
  RolloutConfig rollout;
  RewardConfig reward;
  EnvironmentConfig environment;
  ReplayConfig replay;
  AlgorithmConfig algorithm;
  CriticConfig critic;
  PreferenceConfig preference;
  DistillConfig distill;
  OptimizerConfig optimizer;
  EvalConfig eval;
  MetricsConfig metrics;
  template <class V>
  void Visit(V& v);
};

// Where a value came from: "default", "recipe.toml:12", "--set".
using Origins = std::map<std::string, std::string>;

struct Loaded {
  Config config;
  Origins origins;  // by full key, "rollout.temperature"
};

// Reads and validates. `overrides` are "a.b=c" strings. Throws one Error listing every problem.
Loaded LoadRecipe(const std::string& path, const std::vector<std::string>& overrides = {});
Loaded ParseRecipe(const std::string& text, const std::string& name,
                   const std::vector<std::string>& overrides = {});

// Contradictions between options; each entry is one complete sentence. Empty: fine.
std::vector<std::string> Validate(const Config& config);

// Trains on stored rows, without actors and rewards.
inline bool IsOffline(const Config& config) {
  return config.algorithm.name == AlgorithmName::kDpo ||
         config.algorithm.name == AlgorithmName::kRewardModel ||
         config.algorithm.name == AlgorithmName::kSft;
}

// The whole config as TOML that LoadRecipe reads back to the same Config. Texts for people:
// configs/recipe_text.h.
std::string ToToml(const Config& config);

}  // namespace plumb::configs
