# --- stand-ins for packages that are not here ---------------------------------------------------------------------------

class Fields:
    """In place of a pydantic model: what it is made of."""

    def __init__(self, **fields):
        self.__dict__.update(fields)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return None

    @classmethod
    def model_validate(cls, value):
        return cls(**{k: Fields.model_validate(v) if k in ("function", "parameters") else v for k, v in value.items()}) \
            if isinstance(value, dict) else value

    def model_dump(self, exclude_none=False, **_):
        def plain(value):
            if isinstance(value, Fields):
                return value.model_dump(exclude_none)
            if isinstance(value, dict):
                return {k: plain(v) for k, v in value.items()}
            return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value
        return {k: plain(v) for k, v in self.__dict__.items() if v is not None or not exclude_none}


class BaseTool:
    def __init__(self, config, tool_schema):
        self.config, self.tool_schema = config, tool_schema or self.get_openai_tool_schema()
        self.name = self.tool_schema.function.name

    def get_openai_tool_schema(self):
        raise LookupError(f"{type(self).__name__} has no schema: override get_openai_tool_schema, or give kwargs={{\"tool_schema\": ..}}")

    async def create(self, instance_id=None, **kwargs):
        return (instance_id or os.urandom(8).hex()), Fields(text=None)

    async def execute(self, instance_id, parameters, **kwargs):
        raise NotImplementedError("execute")

    async def calc_reward(self, instance_id, **kwargs):
        return 0.0

    async def release(self, instance_id, **kwargs):
        pass


REGISTRY = {}


def function_tool(name=None, *, schema=None):
    def decorate(function):
        title = name if isinstance(name, str) else function.__name__
        made = schema if schema is not None else {"type": "function", "function": schema_of(function, title)}
        REGISTRY[title] = Fields(name=title, fn=function, tool_schema=Fields.model_validate(made))
        return function
    return decorate(name) if callable(name) else decorate


class AgentInstanceBase:
    async def reset(self, states, **kwargs):
        return states


def same(value=None, *_, **__):
    """A decorator, or what makes one, that changes nothing."""
    return value if callable(value) else lambda f: f


class simple_timer:
    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


MADE = {"BaseTool": BaseTool, "function_tool": function_tool, "FUNCTION_TOOL_REGISTRY": REGISTRY, "rollout_trace_op": same,
        "register": same, "simple_timer": simple_timer, "AgentInstanceBase": AgentInstanceBase,
        "AgentLoopBase": type("AgentLoopBase", (), {}), "AgentExecutorBase": type("AgentExecutorBase", (), {}),
        "MultiTurnAgentExecutor": type("MultiTurnAgentExecutor", (), {})}
for _name in ("ToolResponse", "OpenAIFunctionToolSchema", "OpenAIFunctionSchema", "OpenAIFunctionParametersSchema",
              "OpenAIFunctionPropertySchema", "AgentLoopOutput", "AgentLoopMetrics", "TokenOutput"):
    MADE[_name] = type(_name, (Fields,), {})


# Modules that are imported from their package by name.
SHELVES = ("tools", "schemas", "base_tool", "utils", "experimental", "agent_loop", "agent", "workers", "rollout")


class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of verl and OpenRLHF where these are not installed: an environment's file needs their base classes only."""

    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("verl", "openrlhf"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        made = types.ModuleType(spec.name)

        def lookup(name):
            if name in MADE:
                return MADE[name]
            if name.startswith("__") or name in SHELVES:
                raise AttributeError(name)
            # ImportError, or a module of that name would be looked for, and made.
            raise ImportError(f"{spec.name} is not installed, and Plumb's stand-in for it has no {name}: name an interpreter that "
                              "has it, args = [\"python=venv/bin/python\"]")
        made.__getattr__ = lookup
        return made

    def exec_module(self, module):
        pass


