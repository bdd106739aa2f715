"""A recipe that trains in seconds, for scripts that try how runs are started."""

TOY = """
[run]
seed = 3
steps = 30
checkpoint_every = 10
threads = 1

[model]
layers = 1
hidden = 32
heads = 2
kv_heads = 2
ffn = 64
max_positions = 64
vocabulary = "arithmetic"
init_std = 0.05

[data]
train = "arithmetic"
eval = "arithmetic"
eval_prompts = 10

[rollout]
prompts_per_step = 4
samples_per_prompt = 4
max_new_tokens = 12
max_batch = 64
kv_budget_mb = 64

[[reward.parts]]
name = "short"
kind = "length"
target_tokens = 1
max_tokens = 12

[algorithm]
name = "grpo"

[optimizer]
learning_rate = 1e-3
lr_schedule = "constant"
"""
