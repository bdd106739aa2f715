"""OpenRLHF's AgentInstance: reset and step of its multi-turn agents."""
from openrlhf.utils.agent import AgentInstanceBase, MultiTurnAgentExecutor


class AgentInstance(AgentInstanceBase):
    def __init__(self, *args, **kwargs):
        self.turns = 0

    async def reset(self, states: dict, **kwargs):
        return {"observation": states["observation"]}

    async def step(self, states: dict, **kwargs):
        self.turns += 1
        right = states["label"] in states["action_text"]
        done = right or self.turns == 3
        return {"rewards": float(right), "scores": float(right), "done": done,
                "environment_feedback": "" if done else "\nNo. Again: ", "sampling_params": states.get("sampling_params"),
                "extra_logs": {"turns": self.turns}}


class AgentExecutor(MultiTurnAgentExecutor):
    def __init__(self):
        super().__init__(AgentInstance)
