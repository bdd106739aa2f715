"""verl's BaseTool: create, execute, calc_reward, release. Runs where verl is installed and where it is not."""
from uuid import uuid4

from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse


class CheckAnswer(BaseTool):
    def __init__(self, config, tool_schema):
        self.told = {}
        super().__init__(config, tool_schema)

    def get_openai_tool_schema(self):
        return OpenAIFunctionToolSchema.model_validate({
            "type": "function",
            "function": {"name": "check_answer", "description": "Checks a number before it is given as the answer.",
                         "parameters": {"type": "object", "required": ["answer"],
                                        "properties": {"answer": {"type": "string", "description": "the number"}}}}})

    async def create(self, instance_id=None, ground_truth=None, **kwargs):
        instance_id = instance_id or str(uuid4())
        self.told[instance_id] = {"truth": ground_truth, "right": False}
        return instance_id, ToolResponse()

    async def execute(self, instance_id, parameters, **kwargs):
        state = self.told[instance_id]
        state["right"] = parameters["answer"] == state["truth"]
        return ToolResponse(text="right" if state["right"] else "wrong"), 0.0 if state["right"] else -0.05, {}

    async def calc_reward(self, instance_id, **kwargs):
        return 1.0 if self.told[instance_id]["right"] else 0.0

    async def release(self, instance_id, **kwargs):
        del self.told[instance_id]
