"""verl's AgentLoopBase: it asks the model itself, as often as it likes."""
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput


class AskAgain(AgentLoopBase):
    """Says that an answer is wrong, once; what comes then counts."""

    async def run(self, sampling_params, **kwargs):
        messages = list(kwargs["raw_prompt"])
        truth = kwargs["reward_model"]["ground_truth"]
        prompt_ids = await self.ct_build_initial_tokens(messages)
        tokens, mask, right = list(prompt_ids), [], False
        for turn in range(2):
            output = await self.server_manager.generate(request_id=uuid4().hex, prompt_ids=tokens, sampling_params=sampling_params)
            answer = self.tokenizer.decode(output.token_ids)
            merged, mask, _ = await self.ct_merge_assistant_token(tokens, output.token_ids, mask)
            tokens = merged.token_ids
            right = truth in answer
            if right or turn == 1:
                break
            more = messages + [{"role": "assistant", "content": answer}, ]
            again = more + [{"role": "user", "content": "That is wrong. Try again."}]
            merged, mask, _ = await self.ct_merge_context_msg(more, again, tokens, mask)
            tokens = merged.token_ids
        return AgentLoopOutput(prompt_ids=prompt_ids, response_ids=tokens[len(prompt_ids):], response_mask=mask,
                               reward_score=1.0 if right else 0.0, num_turns=turn + 1, metrics=AgentLoopMetrics())
