// The one list of options: what each field is called, its unit, its advice, and the names other
// systems give it.
//
// Parsing, checking, printing and documentation are visitors over these lists; a visitor is called
// as v(FieldInfo, field) for each field and v.Section(name, struct) for each table. Included by
// configs/*.cc only.
#pragma once

#include "configs/algorithm_fields.h"
#include "configs/config.h"

namespace plumb::configs {

template <class V>
void RunConfig::Visit(V& v) {
  v({"seed", "1", "every random draw is keyed by it; the same seed gives the same run"}, seed);
  v({"out", "path", "run folder; empty: runs/<recipe name>", "output_dir default_local_dir"}, out);
  v({"roles", "name",
     "one process for all; one for each role, restarted when killed; or cluster: roles of other "
     "machines join (docs/cluster.md)"},
    roles);
  v({"schedule", "name", "batch k uses version k only, reproducible; or generation runs ahead"},
    schedule);
  v({"max_staleness", "versions", "how far generation may run ahead under async; 0 under sync",
     AtLeast(0)},
    max_staleness);
  v({"steps", "steps", "train steps of the whole run", "total_steps max_steps", AtLeast(0)}, steps);
  v({"checkpoint_every", "steps",
     "of the run, and updates of its warm start; 0: only at the end, a stop and an error",
     "save_steps save_freq", AtLeast(0)},
    checkpoint_every);
  v({"keep_checkpoints", "1",
     "verified checkpoints kept; an old one goes only when the new one is complete",
     "save_total_limit", AtLeast(1)},
    keep_checkpoints);
  v({"threads", "1",
     "threads of products and kernels in each process, shared by roles that compute there at a "
     "time; 0: the cores, shared by all that do",
     Within(0, 1024)},
    threads);
  v({"device", "name", "cpu | cuda (the first GPU) | cuda:1 (the second), ..."}, device);
  v({"exact", "bool",
     "a forward on a GPU gives a token the same bits whatever it is computed beside, in generation "
     "and in training; false: cuBLAS and LibTorch choose. plumb doctor --gpu measures the cost"},
    exact);
  v({"memory_gb", "GB", "of the device for the run; 0: what is free. More is refused at the start",
     Within(0, 1e6)},
    memory_gb);
  v({"actors", "processes",
     "generating processes under roles = processes; cluster: of plans and job scripts, in a run as "
     "many as join",
     Within(1, 256)},
    actors);
  v({"reward_workers", "processes", "scoring processes under roles = processes", Within(1, 256)},
    reward_workers);
  v({"stall_seconds", "s",
     "a wait in which nothing is generated, scored or stored for this long ends the run and names "
     "what it waited for",
     Positive()},
    stall_seconds);
  v({"parallel", "counts",
     "learner processes and how they share the work: dp=2 | tp=2 | dp=2,tp=2 | dp=2,pp=2 | "
     "dp=2,ep=2; empty: one"},
    parallel);
  v({"zero", "1", "data-parallel ranks keep a part each of: 1 moments, 2 gradients, 3 weights, too",
     Within(0, 3)},
    zero);
  v({"gradient_wire", "name", "as what gradients travel between ranks"}, gradient_wire);
  v({"stages", "recipes",
     "run one after the other, each from the language model before it; this recipe's other options "
     "hold for all of them"},
    stages);
  v({"listen", "endpoint",
     "cluster: tcp://address:port that roles join (plumb role --join); that port and the four "
     "behind "
     "it"},
    listen);
  v({"keys", "folder",
     "cluster: CURVE keys of the roles (plumb keys generate FOLDER/); empty: the loopback only"},
    keys);
  v({"relay", "actors",
     "cluster: weights go through a tree: the head, and each actor that can be reached, hands them "
     "on to so many others; 0: the head sends them to each",
     Within(0, 64)},
    relay);
  v({"weight_deltas", "bool",
     "cluster: who has a version gets of the next one only what has changed, exactly; for one more "
     "copy of the trained weights in each actor's memory"},
    weight_deltas);
}

template <class V>
void CheckpointConfig::Visit(V& v) {
  v({"optimizer", "name",
     "the optimizer's moments, 8 bytes a trained parameter: kept until the run has done its steps, "
     "always, or never. A run resumes exactly only with them"},
    optimizer);
  v({"optimizer_every", "checkpoints", "from one with the optimizer's state to the next",
     AtLeast(1)},
    optimizer_every);
  v({"background", "bool", "checkpoints are written while the run goes on"}, background);
}

template <class V>
void ModelConfig::Visit(V& v) {
  v({"path", "folder", "HF model folder; empty: a new model of the shape below",
     "model_name_or_path pretrain"},
    path);
  v({"dtype", "name", "bfloat16 is 4-5x faster where the processor has it", "torch_dtype"}, dtype);
  v({"products", "name",
     "what the learner's products of layers read; fp8: 8 bits a number, for large models on a GPU "
     "of capability 8.9; fp16: float16 under a scaled loss; weights and generation keep dtype"},
    products);
  v({"layers", "1", "of a new model", AtLeast(1)}, layers);
  v({"hidden", "1", "width of a new model; a multiple of heads"}, hidden);
  v({"heads", "1", "query heads of a new model", AtLeast(1)}, heads);
  v({"kv_heads", "1", "key and value heads of a new model; divides heads; latent: all have them",
     AtLeast(1)},
    kv_heads);
  v({"ffn", "1", "width of the feed-forward part of a new model", AtLeast(1)}, ffn);
  v({"max_positions", "tokens", "longest sequence of a new model", AtLeast(2)}, max_positions);
  v({"tied", "bool", "a new model's head is its embedding"}, tied);
  v({"rope_theta", "1", "base of the rotary angles of a new model"}, rope_theta);
  v({"init_std", "1", "standard deviation of a new model's weights", Positive()}, init_std);
  v({"vocabulary", "name", "built-in tokenizer of a new model"}, vocabulary);
  v({"norms", "names", "rmsnorm or layernorm, of a new model's layers in order, repeated"}, norms);
  v({"window", "tokens", "that a token of a new model sees, itself included; 0: all", AtLeast(0)},
    window);
  v({"global_every", "tokens",
     "under a window: every so manyth position is seen by all behind it; 0: none", AtLeast(0)},
    global_every);
  v({"attention", "name", "of a new model; latent: one compressed vector a token (MLA)"},
    attention);
  v({"kv_rank", "1", "latent: width of that vector", "kv_lora_rank", AtLeast(1)}, kv_rank);
  v({"query_rank", "1", "latent: width of compressed queries; 0: not compressed", "q_lora_rank",
     AtLeast(0)},
    query_rank);
  v({"rope_dim", "1", "latent: rotated part of a head", "qk_rope_head_dim", AtLeast(2)}, rope_dim);
  v({"sinks", "bool",
     "a learned logit a head of a new model, which takes weight and gives nothing"},
    sinks);
  v({"gate_top_k", "tokens",
     "under a window: so many further tokens, chosen by a learned gate, are seen besides; 0: none",
     AtLeast(0)},
    gate_top_k);
  v({"scales", "names",
     "what the layers of a new model see, in order, repeated: local (window), global (all), memory "
     "(memory_table besides); empty: as window says"},
    scales);
  v({"memory_table", "file", "memory: safetensors with `keys` and `values` to retrieve from"},
    memory_table);
}

template <class V>
void ExpertsConfig::Visit(V& v) {
  v({"count", "1", "experts of each layer of a new model; 0: dense", "num_experts", AtLeast(0)},
    count);
  v({"per_token", "1", "experts that a token goes to", "num_experts_per_tok", AtLeast(1)},
    per_token);
  v({"shared", "1", "experts that every token has besides", AtLeast(0)}, shared);
  v({"shared_gate", "bool", "a sigmoid of the token weighs what the shared experts give"},
    shared_gate);
  v({"widths", "1", "of the experts in order, repeated; empty: model.ffn each"}, widths);
  v({"first_dense", "1", "first layers that stay dense", AtLeast(0)}, first_dense);
  v({"router", "name", "what makes weights of the router's logits"}, router);
  v({"renormalize", "bool", "the weights of a token's experts add up to 1"}, renormalize);
  v({"temperature", "1", "of the router's logits", Positive()}, temperature);
  v({"groups", "1", "of experts; a token's come from groups_per_token of them", AtLeast(1)},
    groups);
  v({"groups_per_token", "1", "groups that a token's experts come from", AtLeast(1)},
    groups_per_token);
  v({"bias_rate", "1", "a step, of the bias that balances the load; 0: off", AtLeast(0)},
    bias_rate);
  v({"aux_coef", "1", "of the loss that balances the load", "router_aux_loss_coef", AtLeast(0)},
    aux_coef);
  v({"z_coef", "1", "of the loss on the router's log-sum-exp", AtLeast(0)}, z_coef);
  v({"capacity", "1", "of an expert, in shares of an equal load; 0: no token is dropped",
     AtLeast(0)},
    capacity);
  v({"capacity_noise", "1", "random share added to it in training", AtLeast(0)}, capacity_noise);
  v({"sync_every", "1",
     "updates from one sum of experts' gradients over ranks, and step of experts, to the next",
     Within(1, 1024)},
    sync_every);
}

template <class V>
void PolicyConfig::Visit(V& v) {
  v({"adapter", "name", "a low-rank adapter on model.path needs a fraction of the memory",
     "peft_type"},
    adapter);
  v({"rank", "1", "lora: of the adapter's matrices", "r lora_rank lora_r", Within(1, 65536)}, rank);
  v({"alpha", "1", "lora: what the adapter adds is scaled by alpha / rank", "lora_alpha",
     Range{.low = 0, .high = 1e6, .above = true}},
    alpha);
  v({"targets", "names",
     "lora: modules that get one (q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj), "
     "or all-linear",
     "target_modules lora_target_modules"},
    targets);
  v({"rslora", "bool", "lora: scale by alpha / sqrt(rank)", "use_rslora"}, rslora);
  v({"dropout", "1", "lora: of what goes into the adapter, in training", "lora_dropout",
     Within(0, 0.99)},
    dropout);
  v({"rank_pattern", "list", "lora: \"pattern=rank\" of modules; the first that matches counts"},
    rank_pattern);
  v({"alpha_pattern", "list", "lora: \"pattern=alpha\" of modules; the first that matches counts"},
    alpha_pattern);
  v({"learning_rates", "list",
     "\"pattern=factor\" of optimizer.learning_rate for parameters; the first that matches counts"},
    learning_rates);
  v({"frozen", "list", "patterns of parameters that are not trained"}, frozen);
  v({"adapters", "1", "on one base, weighed by a softmax over a learned embedding of the task",
     Within(1, 64)},
    adapters);
  v({"tasks", "names", "of the rows, as the column named by data.map.task has them"}, tasks);
  v({"task_tokens", "tokens", "learned ones of a task, put in front of its prompts",
     Within(0, 256)},
    task_tokens);
}

template <class V>
void DataConfig::Visit(V& v) {
  v({"train", "file",
     "what the algorithm trains on: prompts, pairs or demonstrations, in a file or in a store (its "
     "folder); \"arithmetic\": generated sums; \"tiny_texts\": a small generated world",
     "train_files prompt_data"},
    train);
  v({"dataset", "name",
     "data.train is a store's folder: which of its datasets; empty: the only one"},
    dataset);
  v({"eval", "file", "held-out prompts, or \"arithmetic\", \"tiny_texts\"; empty: no evaluation",
     "val_files"},
    eval);
  v({"eval_prompts", "rows", "at most so many rows of eval; 0: all", AtLeast(0)}, eval_prompts);
  v({"eval_skip", "rows",
     "usable rows of eval passed over first; at least `limit` where eval is train's file",
     AtLeast(0)},
    eval_skip);
  v({"map", "table", "other column names, e.g. { prompt = \"input\", answer = \"label\" }"}, map);
  v({"system_prompt", "text", "put in front of every prompt as a system message"}, system_prompt);
  v({"chat_template", "bool",
     "text (of prompts, pairs, demonstrations) goes through the model's chat template, where it "
     "has one; messages always do"},
    chat_template);
  v({"prompt_suffix", "text", "appended to the user's text, e.g. how to write the answer"},
    prompt_suffix);
  v({"max_prompt_tokens", "tokens", "longer prompts follow `overlong`",
     "max_prompt_length prompt_max_len", AtLeast(1)},
    max_prompt_tokens);
  v({"overlong", "name", "left and right: the side that is cut; counted and reported"}, overlong);
  v({"shuffle", "bool", "another order in every epoch, keyed by the seed"}, shuffle);
  v({"limit", "rows", "use only the first rows of train; 0: all", AtLeast(0)}, limit);
  v({"arithmetic_digits", "digits", "size of the numbers in generated sums"}, arithmetic_digits);
  v({"arithmetic_sft_examples", "rows", "written-out sums for the warm start"},
    arithmetic_sft_examples);
}

template <class V>
void ReplayConfig::Visit(V& v) {
  v({"keep_steps", "steps",
     "rollouts kept behind the oldest checkpoint, to mine, rescore or replay them; -1: all",
     AtLeast(-1)},
    keep_steps);
  v({"prompts", "name", "passes follow data.shuffle, prioritised goes by weight"}, prompts);
  v({"groups_per_step", "groups",
     "groups of earlier steps added to each batch, with importance weights; 0: on-policy only",
     AtLeast(0)},
    groups_per_step);
  v({"sampler", "name", "of earlier groups; prioritised goes by the spread of rewards"}, sampler);
  v({"max_age_steps", "steps", "older groups are not drawn; so many steps stay in the store",
     AtLeast(1)},
    max_age_steps);
  v({"max_times_sampled", "draws", "a group that was drawn so often leaves; 0: no bound",
     AtLeast(0)},
    max_times_sampled);
  v({"max_groups", "groups", "drawn from at most so many; 0: no bound", AtLeast(0)}, max_groups);
  v({"evict", "name", "who leaves when there are more than max_groups"}, evict);
  v({"samples_per_insert", "1", "draws for each group generated, at most, over the run",
     Within(1e-6, 1e6)},
    samples_per_insert);
  v({"min_groups", "groups", "generated before the first draw", AtLeast(1)}, min_groups);
  v({"max_staleness", "versions",
     "that a drawn group may be behind; 0: only max_age_steps bounds it", AtLeast(0)},
    max_staleness);
  v({"alpha", "1", "prioritised: exponent of the priority; 0 is uniform", Within(0, 100)}, alpha);
  v({"easiest", "1", "curriculum: share of the prompts at the start", Within(1e-6, 1)}, easiest);
  v({"ramp", "1", "curriculum: part of the run after which all are in", Within(0, 1)}, ramp);
  v({"floor", "1", "difficulty: weight of what is always or never solved, as a share of the most",
     Within(0, 1)},
    floor);
  v({"stratum", "column", "of the data: what stratified and group go by"}, stratum);
  v({"difficulty", "column",
     "of the data, a number: what curriculum goes by; empty: length of the prompt"},
    difficulty);
  v({"history_steps", "steps", "difficulty: steps whose results count; they stay in the store",
     AtLeast(1)},
    history_steps);
}

template <class V>
void SftConfig::Visit(V& v) {
  v({"steps", "steps", "updates of the warm start; 0: none", AtLeast(0)}, steps);
  v({"batch", "sequences", "demonstrations an update, also of sft as the algorithm", AtLeast(1)},
    batch);
  v({"learning_rate", "1", "peak rate of the warm start", "lr", Positive()}, learning_rate);
  v({"lr_schedule", "name", "", "lr_scheduler_type"}, lr_schedule);
  v({"warmup_fraction", "1", "share of the steps with a rising rate", "warmup_ratio"},
    warmup_fraction);
  v({"min_lr_fraction", "1", "rate at the end, as a share of the peak"}, min_lr_fraction);
  v({"weight_decay", "1", "decoupled decay of matrices"}, weight_decay);
  v({"data", "file", "demonstrations; empty: those that belong to data.train"}, data);
  v({"eval_every", "steps", "between held-out losses; 0: never", AtLeast(0)}, eval_every);
  v({"patience", "losses",
     "in a row without one 2 % lower than all before, then the warm start ends; 0: all steps",
     "early_stopping_patience", AtLeast(0)},
    patience);
  v({"heldout", "rows",
     "sft as the algorithm: last rows of the file, never trained on; -1: 100, of a smaller file a "
     "tenth",
     AtLeast(-1)},
    heldout);
  v({"max_tokens", "tokens", "sft as the algorithm: longer sequences follow data.overlong",
     "max_length max_seq_length cutoff_len", AtLeast(2)},
    max_tokens);
  v({"curriculum", "texts",
     "sft: \"source=share\" in order: demonstrations of that source (their column source) alone "
     "until that share of the steps, behind the last all mixed; empty: mixed from the start"},
    curriculum);
  v({"syntax_penalty", "1",
     "sft: weight of the share of brackets in demonstrations of the source code that the model "
     "would not write; 0.3 is usual; 0: off",
     AtLeast(0)},
    syntax_penalty);
}

template <class V>
void RolloutConfig::Visit(V& v) {
  v({"prompts_per_step", "prompts", "groups in a training batch",
     "train_batch_size rollout_batch_size", AtLeast(1)},
    prompts_per_step);
  v({"samples_per_prompt", "answers", "group size", "num_generations n n_samples_per_prompt",
     AtLeast(1)},
    samples_per_prompt);
  v({"max_new_tokens", "tokens", "an answer is cut here",
     "max_completion_length max_response_length response_length", AtLeast(1)},
    max_new_tokens);
  v({"temperature",
     "1",
     "of the sampled distribution; log-probs are of that distribution",
     {0, 100, true}},
    temperature);
  v({"top_k", "tokens", "0: off; the learner computes over the tokens that filters keep",
     AtLeast(0)},
    top_k);
  v({"top_p", "1", "1: off", Within(1e-6, 1)}, top_p);
  v({"min_p", "1", "0: off", Within(0, 1)}, min_p);
  v({"stop", "texts", "stop strings besides the end-of-sequence token"}, stop);
  v({"max_batch", "sequences", "decoded together", AtLeast(1)}, max_batch);
  v({"page_tokens", "tokens", "KV slots a page", AtLeast(1)}, page_tokens);
  v({"kv_budget_mb", "MiB", "memory of the KV pages", AtLeast(1)}, kv_budget_mb);
  v({"prefill_tokens", "tokens", "prompt tokens computed in one step", AtLeast(1)}, prefill_tokens);
  v({"kv_type", "name", "how keys and values are kept; fewer bits hold more answers at once",
     "kv_cache_dtype"},
    kv_type);
  v({"replay_experts", "bool", "the learner sends a token to the experts that the actor chose"},
    replay_experts);
  v({"device", "name",
     "of the actors: cpu | cuda:1 | cuda (the GPUs behind the learner's, one for each actor "
     "process); empty: run.device"},
    device);
  v({"tp", "processes",
     "that compute an actor's model together, a share of every layer each, on a GPU each; "
     "roles = processes",
     Within(1, 64)},
    tp);
  v({"share_prefixes", "bool",
     "pages that a prompt has in common with one before it are not computed again"},
    share_prefixes);
  v({"kv_after_update", "name",
     "keys and values of answers that run on under new weights: keep (of the old ones; costs "
     "nothing) | recompute (log-probs of later tokens are those of the new weights alone)"},
    kv_after_update);
}

template <class V>
void RewardPartConfig::Visit(V& v) {
  v({"name", "name", "name in metrics and samples; empty: the kind"}, name);
  v({"kind", "name",
     "answer | format | length | plugin | program | python | ... (docs/rewards.md)"},
    kind);
  v({"weight", "1", "share in the reward"}, weight);
  v({"path", "file", "shared object, program or Python file"}, path);
  v({"args", "texts", "arguments of a program"}, args);
  v({"timeout_s", "s", "wall clock a call; then the process is killed"}, timeout_s);
  v({"memory_mb", "MiB", "address space of the process that runs it"}, memory_mb);
  v({"workers", "processes", "that run it"}, workers);
  v({"target_tokens", "tokens", "length: full score up to here"}, target_tokens);
  v({"max_tokens", "tokens", "length: 0 from here on"}, max_tokens);
  v({"endpoint", "address",
     "zmq: tcp://host:port or ipc:///path; http, judge: http(s)://host:port/path",
     "url remote_rm_url rm_url"},
    endpoint);
  v({"api", "name", "of http"}, api);
  v({"reply_key", "name",
     "http, api = slime: which number of a reply object is the score; empty: score", "reward_key"},
    reply_key);
  v({"server_key", "file",
     "zmq: public key (.pub) of the worker; empty: no keys, loopback or ipc only"},
    server_key);
  v({"client_key", "file",
     "zmq: our key (.key) that the worker knows; plumb keys generate makes one"},
    client_key);
  v({"model", "name", "judge: the model's name at its endpoint"}, model);
  v({"judge_prompt", "text",
     "judge: what it is asked, with {prompt}, {completion}, {ground_truth}"},
    judge_prompt);
  v({"score_regex", "PCRE2", "judge: group 1 is the number; empty: the last number of its text"},
    score_regex);
  v({"scale", "1", "judge: the number that counts as 1"}, scale);
  v({"api_key_env", "name",
     "http, judge: environment variable with the key; the key itself never stands in a recipe"},
    api_key_env);
}

template <class V>
void RewardConfig::Visit(V& v) {
  v({"parts", "tables", "the parts of a reward, [[reward.parts]]"}, parts);
  v({"on_failure", "name", "after the retries"}, on_failure);
  v({"retries", "1", "further tries of a failed call", AtLeast(0)}, retries);
  v({"penalty", "1", "reward of an answer that could not be scored under on_failure = penalty"},
    penalty);
  v({"allow_unsandboxed", "bool",
     "run reward code although a layer of isolation is missing on this machine"},
    allow_unsandboxed);
}

template <class V>
void EnvironmentConfig::Visit(V& v) {
  v({"kind", "name", "who answers the policy in a conversation of several turns (docs/agents.md)"},
    kind);
  v({"path", "file", "program, shared object or Python file"}, path);
  v({"args", "texts", "of a program"}, args);
  v({"name", "name", "python: class or function in the file; empty: the only one"}, name);
  v({"endpoint", "address", "http"}, endpoint);
  v({"tools", "names",
     "tools: of calculator, python, search; python: the functions of the file that the policy may "
     "call; empty: all"},
    tools);
  v({"corpus", "file", "search: texts, one a row"}, corpus);
  v({"tool_form", "name", "in which the model writes its calls; auto: by its chat template"},
    tool_form);
  v({"max_turns", "turns", "of the policy; behind the last one the answer ends",
     "max_tool_calling_iterations", AtLeast(1)},
    max_turns);
  v({"reply_tokens", "tokens", "of the environment in a turn; longer ones are cut, counted",
     AtLeast(1)},
    reply_tokens);
  v({"timeout_s", "s", "wall clock of a call", Positive()}, timeout_s);
  v({"episode_seconds", "s", "wall clock of a conversation", Positive()}, episode_seconds);
  v({"memory_mb", "MiB", "address space of an environment's process", AtLeast(16)}, memory_mb);
  v({"workers", "1", "processes", AtLeast(1)}, workers);
  v({"listen", "endpoint",
     "agent: tcp://address:port of the OpenAI-compatible endpoint; empty: a free port of the "
     "loopback"},
    listen);
}

template <class V>
void DistillConfig::Visit(V& v) {
  v({"teachers", "models",
     "folders, addresses of `plumb serve`, or \"self\": the policy's start; \"dataset=folder\" "
     "where "
     "each dataset has its own; none: no distillation",
     "teacher_model_name_or_path teacher_model"},
    teachers);
  v({"distance", "name", "what the two distributions are compared by (docs/distillation.md)",
     "loss_mode"},
    distance);
  v({"coef", "1", "weight of the teacher's term", "distillation_loss_coef distill_loss_weight",
     AtLeast(0)},
    coef);
  v({"only", "bool", "the teacher alone: the rewards are measured and teach nothing"}, only);
  v({"beta", "1", "jsd: share of the teacher in the mixture", Within(0, 1)}, beta);
  v({"top_k", "tokens", "forward_top_k, jsd: the teacher's likeliest", "topk loss_top_k",
     AtLeast(1)},
    top_k);
  v({"temperature", "1", "of both distributions", Positive()}, temperature);
  v({"confidence", "1",
     "rows whose answer the teacher gives a lower mean probability are left out, but for a share; "
     "0: none",
     Within(0, 1)},
    confidence);
  v({"unsure_share", "1", "of the rows below distill.confidence, that stay", Within(0, 1)},
    unsure_share);
  v({"feature_steps", "steps", "sft: first steps, which compare hidden states by L2", AtLeast(0)},
    feature_steps);
  v({"boundary_coef", "1", "sft: weight of the decision-boundary term", AtLeast(0)}, boundary_coef);
  v({"perturb", "1", "sft: adversarial perturbation of embeddings, as a share of their norm",
     Within(0, 1)},
    perturb);
  v({"student_share", "1",
     "of the steps with answers that the student writes; the others learn from the data's", "lmbda",
     Within(0, 1)},
    student_share);
}

template <class V>
void EvalConfig::Visit(V& v) {
  v({"every", "steps", "0: only before and after", "eval_steps test_freq", AtLeast(0)}, every);
  v({"samples", "answers", "a held-out prompt", AtLeast(1)}, samples);
  v({"success_part", "name", "reward part that says solved (>= 0.5); empty: the first"},
    success_part);
  v({"bar", "1",
     "share solved at the end below which the run exits with 7; of pairs the share ranked right, "
     "of "
     "demonstrations 1 / perplexity; 0: none",
     Within(0, 1)},
    bar);
  v({"keep_best", "bool", "the checkpoint of the best evaluation stays, as RUN/best",
     "load_best_model_at_end"},
    keep_best);
}

template <class V>
void MetricsConfig::Visit(V& v) {
  v({"tensorboard", "bool", "write event files"}, tensorboard);
  v({"prometheus_port", "port", "serve /metrics on the loopback; 0: off", Within(0, 65535)},
    prometheus_port);
  v({"samples_every", "steps",
     "between entries of samples.jsonl, which always has the last step; 0: none"},
    samples_every);
  v({"samples", "name", "of such a step: two answers of one prompt, or every answer",
     "log_completions"},
    samples);
  v({"follow", "name",
     "tracker that is told the metrics by a process of its own, which needs its Python package"},
    follow);
}

template <class V>
void Config::Visit(V& v) {
  v.Section("run", run);
  v.Section("checkpoint", checkpoint);
  v.Section("model", model);
  v.Section("experts", experts);
  v.Section("policy", policy);
  v.Section("data", data);
  v.Section("sft", sft);
  v.Section("rollout", rollout);
  v.Section("reward", reward);
  v.Section("environment", environment);
  v.Section("replay", replay);
  v.Section("algorithm", algorithm);
  v.Section("critic", critic);
  v.Section("preference", preference);
  v.Section("distill", distill);
  v.Section("optimizer", optimizer);
  v.Section("eval", eval);
  v.Section("metrics", metrics);
}

}  // namespace plumb::configs
