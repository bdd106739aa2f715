"""OpenRLHF's AgentExecutor: it asks the engine itself and keeps the tokens."""
from openrlhf.utils.agent import AgentExecutorBase


class AgentExecutor(AgentExecutorBase):
    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        tokens = hf_tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"][0].tolist()
        ranges, reward = [], 0.0
        for turn in range(2):
            output = (await llm_engine.generate(tokens, sampling_params)).outputs[0]
            ranges.append((len(tokens), len(tokens) + len(output.token_ids)))
            tokens = tokens + list(output.token_ids)
            reward = float(label in output.text)
            if reward:
                break
            if turn == 0:
                tokens = tokens + hf_tokenizer("\nAre you sure? ", return_tensors="pt")["input_ids"][0].tolist()
        return {"prompt": prompt, "label": label, "observation_tokens": tokens, "reward": reward, "scores": reward,
                "action_ranges": ranges, "extra_logs": {}}
