"""TRL on the arithmetic model, for bench/compare_arithmetic.py: GRPO (GRPOTrainer, TRL 1.16) or PPO (experimental.ppo, TRL 1.12: the
last release that has it) in float32, with the hyper-parameters that the driver gives Plumb. START is a model folder that Plumb saved (its
log-probs have to be Plumb's before anything is trained), TRAIN and HELDOUT are what `plumb data export` wrote. Prints one JSON object: mean reward and seconds of every step."""
import argparse
import json
import math
import os
import shutil
import tempfile
import time

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

parser = argparse.ArgumentParser()
parser.add_argument("algorithm", choices=["grpo", "ppo"])
parser.add_argument("start")
parser.add_argument("train")
parser.add_argument("heldout")
parser.add_argument("--save", required=True, help="folder of the trained model")
parser.add_argument("--scores", required=True, help="what `plumb score START` says to prompts: the start has to be the same here")
parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
for name in ("steps", "prompts", "samples", "new", "threads", "seed"):
    parser.add_argument(f"--{name}", type=int, required=True)
for name in ("learning_rate", "warmup_fraction", "min_lr_fraction", "beta1", "beta2", "grad_clip", "clip_low", "clip_high", "kl_coef",
             "gamma", "lam", "value_clip"):
    parser.add_argument("--" + name.replace("_", "-"), type=float, required=True)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(args.seed)
answers = args.prompts * args.samples

tokenizer = AutoTokenizer.from_pretrained(args.start, padding_side="left")
model = AutoModelForCausalLM.from_pretrained(args.start, dtype=torch.float32)


def rows(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


train, heldout = rows(args.train), rows(args.heldout)
begin = tokenizer(train[0]["prompt"]).input_ids
assert begin.count(tokenizer.bos_token_id) == 1 and begin[0] == tokenizer.bos_token_id, f"prompts have to begin with <bos>: {begin}"
with open(args.scores) as lines:
    scored = [json.loads(line) for line in lines]
for text, ours in zip(heldout, scored, strict=True):
    ids = tokenizer(text["prompt"], return_tensors="pt").input_ids
    assert ids[0].tolist() == ours["tokens"], (ids, ours)
    with torch.no_grad():
        theirs = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None]).flatten()
    apart = max(abs(a - b) for a, b in zip(theirs.tolist(), ours["logprobs"][1:], strict=True))
    assert apart < 1e-4, f"transformers and Plumb read different models: log-probs differ by {apart}"
truths = {row["prompt"]: int(row["ground_truth"]) for row in train + heldout}


def correct(prompt, completion):
    """The rule of kind = "answer": the number in the last <answer></answer>, 1 or 0."""
    close = completion.rfind("</answer>")
    open_ = completion.rfind("<answer>", 0, max(close, 0))
    text = completion[open_ + len("<answer>"):close].strip() if 0 <= open_ < close else ""
    return float(text.isdigit() and int(text) == truths[prompt])


def rate(step):
    """Plumb's schedule (learner/update/schedule.h) as a share of the peak: its warm-up begins above 0, transformers' own at 0."""
    warmup = round(args.warmup_fraction * args.steps)
    if step < warmup:
        return (step + 1) / warmup
    x = min(1.0, (step - warmup) / max(1, args.steps - warmup))
    return args.min_lr_fraction + (1 - args.min_lr_fraction) * 0.5 * (1 + math.cos(math.pi * x))


def optimizers(*modules):
    parameters = [p for module in modules for p in module.parameters()]
    adam = torch.optim.AdamW(parameters, lr=args.learning_rate, betas=(args.beta1, args.beta2), eps=1e-8, weight_decay=0.0)
    return adam, torch.optim.lr_scheduler.LambdaLR(adam, rate)


def pass_at_1():
    """Greedy answers to the held-out problems."""
    model.eval()
    prompts = [row["prompt"] for row in heldout]
    batch = tokenizer(prompts, return_tensors="pt", padding=True).to(model.device)
    with torch.no_grad():
        out = model.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, do_sample=False, max_new_tokens=args.new,
                             eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    texts = tokenizer.batch_decode(out[:, batch.input_ids.shape[1]:], skip_special_tokens=True)
    return sum(map(correct, prompts, texts)) / len(prompts)


class Clock(TrainerCallback):
    """Seconds from the end of one step to the end of the next: generation and rewards belong to it."""
    ends = []

    def on_train_begin(self, *_, **__):
        self.ends.append(time.perf_counter())

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())


step_rewards = []
common = dict(use_cpu=args.device == "cpu", bf16=False, per_device_train_batch_size=answers, gradient_accumulation_steps=1,
              max_grad_norm=args.grad_clip, report_to="none", save_strategy="no", gradient_checkpointing=False, disable_tqdm=True,
              seed=args.seed, temperature=1.0, dataloader_pin_memory=False)


def grpo(folder):
    from trl import GRPOConfig, GRPOTrainer

    def reward(prompts, completions, **_):
        scores = list(map(correct, prompts, completions))
        step_rewards.append(sum(scores) / len(scores))
        return scores

    config = GRPOConfig(output_dir=folder, num_generations=args.samples, max_completion_length=args.new, max_steps=args.steps,
                        beta=args.kl_coef, epsilon=args.clip_low, epsilon_high=args.clip_high, loss_type="dapo", scale_rewards="group",
                        num_iterations=1, top_p=1.0, top_k=0, logging_strategy="no", **common)
    return GRPOTrainer(model=model, reward_funcs=reward, args=config, processing_class=tokenizer, callbacks=[Clock()],
                       train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in train]), optimizers=optimizers(model))


class RuleModel(torch.nn.Module):
    """The rule in the place of a reward model: the trainer asks for hidden states and a head; the states are the tokens."""
    base_model_prefix = "tokens"

    def __init__(self):
        super().__init__()
        self.tokens = lambda input_ids, **_: type("Out", (), {"hidden_states": [input_ids]})

    def score(self, ids):
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        scores = [correct(text[:text.index("=") + 1], text[text.index("=") + 1:]) for text in texts]
        step_rewards.append(sum(scores) / len(scores))
        return torch.tensor(scores, device=ids.device)[:, None, None].expand(-1, ids.shape[1], 1)


def ppo(folder):
    from trl.experimental.ppo import PPOConfig, PPOTrainer
    critic = AutoModelForSequenceClassification.from_pretrained(args.start, dtype=torch.float32, num_labels=1)
    torch.nn.init.zeros_(critic.score.weight)  # as Plumb's new head
    config = PPOConfig(output_dir=folder, total_episodes=args.steps * answers, num_ppo_epochs=1, num_mini_batches=1,
                       response_length=args.new, stop_token="eos", kl_coef=args.kl_coef, kl_estimator="k1", cliprange=args.clip_low,
                       cliprange_value=args.value_clip, vf_coef=0.5, gamma=args.gamma, lam=args.lam, num_sample_generations=0,
                       local_rollout_forward_batch_size=answers, logging_strategy="no", **common)
    ids = Dataset.from_list([{"input_ids": tokenizer(row["prompt"]).input_ids} for row in train])
    return PPOTrainer(args=config, processing_class=tokenizer, model=model, reward_model=RuleModel(), value_model=critic,
                      ref_model=AutoModelForCausalLM.from_pretrained(args.start, dtype=torch.float32), train_dataset=ids,
                      eval_dataset=ids.select(range(8)), optimizers=optimizers(model, critic), callbacks=[Clock()])


before = pass_at_1()
with tempfile.TemporaryDirectory() as folder:
    trainer = {"grpo": grpo, "ppo": ppo}[args.algorithm](folder)
    trainer.train()
after = pass_at_1()
model.save_pretrained(args.save)
for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(os.path.join(args.start, name), args.save)
seconds = [end - start for start, end in zip(Clock.ends, Clock.ends[1:])]
assert len(seconds) == len(step_rewards) == args.steps, (len(seconds), len(step_rewards))
import trl  # noqa: E402  (its version; the trainers are imported where they are used)
print(json.dumps({"trl": trl.__version__, "torch": torch.__version__, "device": args.device, "threads": args.threads, "before": before,
                  "after": after, "rewards": step_rewards, "seconds": seconds}))
