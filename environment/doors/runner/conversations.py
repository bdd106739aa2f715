# --- conversations ----------------------------------------------------------------------------------------------------

class Tools:
    """A conversation about tools: {name: function of its arguments}. It is over when nothing is called."""

    def __init__(self, tools, reward=None, end=None):
        self.tools, self.reward, self.end_with, self.opening = tools, reward, end, {}

    def one(self, call):
        try:
            return {"content": text_of(settled(self.tools[call["name"]](**call["arguments"])))}
        except (Exception, SystemExit) as error:
            return {"content": f"error: {why(error)}", "failed": True}

    def act(self, request):
        reply = {"results": [self.one(call) for call in request["calls"]]}
        if not request["calls"] or request["last"]:
            reply["done"] = True
            if self.reward is not None:
                reply["reward"] = number(settled(self.reward()))
        return reply

    def end(self):
        if self.end_with is not None:
            settled(self.end_with())


class ToolFunctions:
    """tools = [f, ...] of TRL, @function_tool of verl."""

    def __init__(self, functions, schemas):
        self.functions, self.tools = functions, schemas

    def begin(self, request):
        return Tools(self.functions)


class TrlEnvironment:
    """environment_factory of TRL: reset, public methods as tools, get_reward; several of them by the column "environment"."""

    def __init__(self, factories):
        self.factories, self.tools, self.idle = factories, [], {name: [] for name in factories}
        for name, factory in factories.items():
            instance = factory(**CONSTANTS)
            self.idle[name].append(instance)
            for method in self.methods(instance).values():
                schema = schema_of(method)
                if schema not in self.tools:
                    self.tools.append(schema)

    @staticmethod
    def methods(instance):
        return {name: getattr(instance, name) for name, _ in inspect.getmembers(type(instance), inspect.isfunction)
                if not name.startswith("_") and name not in ("reset", "get_reward")}

    def begin(self, request):
        name = request["extra"].get("environment") if None not in self.factories else None
        if name not in self.factories:
            raise LookupError(f"the row's environment is {name!r}; there are {sorted(self.factories)}")
        instance = self.idle[name].pop() if self.idle[name] else self.factories[name](**CONSTANTS)
        made = Tools(self.methods(instance), getattr(instance, "get_reward", None))
        made.end_with = lambda: self.idle[name].append(instance)
        said = settled(instance.reset(**accepted(instance.reset, with_truth(instance.reset, row_of(request), request))))
        made.opening = {"observation": text_of(said)} if said else {}
        return made


class VerlTools:
    """Classes of verl's BaseTool: create, execute, calc_reward, release."""

    def __init__(self, classes):
        self.made = {}
        for kind in classes:
            given = dict(CONSTANTS.get(kind.__name__, CONSTANTS))
            schema = given.get("tool_schema")
            wanted = sys.modules.get("verl.tools.schemas")
            if schema is not None and wanted is not None:
                schema = wanted.OpenAIFunctionToolSchema.model_validate(schema)
            tool = kind(given.get("config", {}), schema)
            self.made[tool.name] = tool
        self.tools = [tool.tool_schema.model_dump(exclude_none=True) for tool in self.made.values()]

    def begin(self, request):
        info = request["extra"].get("extra_info")
        by_tool = {**request["extra"], **(info if isinstance(info, dict) else {})}.get("tools_kwargs") or {}
        return VerlConversation(self.made, by_tool, request)


class VerlConversation:
    def __init__(self, tools, by_tool, request):
        self.tools, self.by_tool, self.ids, self.opening = tools, by_tool, {}, {}
        for name, tool in tools.items():
            offered = {"create_kwargs": self.of(name, "create_kwargs"), "ground_truth": request["ground_truth"],
                       **self.of(name, "create_kwargs")}
            made = settled(tool.create(**accepted(tool.create, offered)))
            self.ids[name] = made[0] if isinstance(made, tuple) else made

    def of(self, name, key):
        return (self.by_tool.get(name) or {}).get(key) or {}

    def act(self, request):
        results, reward = [], None
        for call in request["calls"]:
            tool = self.tools[call["name"]]
            try:
                made = settled(tool.execute(self.ids[call["name"]], call["arguments"], **accepted(
                    tool.execute, self.of(call["name"], "execute_kwargs"), everything=True)))
                said, turn = (made[0], made[1]) if isinstance(made, tuple) else (made, None)
                if getattr(said, "image", None) or getattr(said, "video", None):
                    raise TypeError("the tool answered with an image or a video: only text can be told")
                results.append({"content": text_of(getattr(said, "text", said))})
                if number(turn) is not None:
                    reward = (reward or 0) + number(turn)
            except (Exception, SystemExit) as error:
                results.append({"content": f"error: {why(error)}", "failed": True})
        reply = {"results": results}
        if not request["calls"] or request["last"]:
            reply["done"] = True
            for name, tool in self.tools.items():
                if type(tool).calc_reward.__qualname__.split(".")[0] != "BaseTool":
                    given = settled(tool.calc_reward(self.ids[name], **accepted(
                        tool.calc_reward, self.of(name, "calc_reward_kwargs"))))
                    if number(given) is not None:
                        reward = (reward or 0) + number(given)
        if reward is not None:
            reply["reward"] = reward
        return reply

    def end(self):
        for name, tool in self.tools.items():
            settled(tool.release(self.ids[name]))


def action_of(environment, text):
    """The policy's text as what step takes: by its annotation, or by Gym's action space."""
    first = next((p for p in parameters(environment.step).values() if p.name != "self"), None)
    try:
        hint = typing.get_type_hints(environment.step).get(first.name) if first else None
    except Exception:  # a hint that cannot be evaluated says nothing
        hint = None
    if inspect.isclass(hint) and (hasattr(hint, "model_fields") or hasattr(hint, "__dataclass_fields__")):
        fields = getattr(hint, "model_fields", None) or hint.__dataclass_fields__
        needed = [n for n, f in fields.items() if n != "metadata" and (f.is_required() if hasattr(f, "is_required") else True)]
        try:
            given = json.loads(text)
        except ValueError:
            given = None
        if isinstance(given, dict):
            return hint(**given)
        if len(needed) == 1:
            return hint(**{needed[0]: text})
        raise ValueError(f"an action is a JSON object with {', '.join(needed)}")
    if hint in (int, float):
        return hint(text)
    space = getattr(environment, "action_space", None)
    return int(text) if type(space).__name__ == "Discrete" else text


class Gym:
    """reset and step: Gym, Gymnasium, reasoning environments, OpenEnv's Environment."""

    def __init__(self, factory):
        self.factory, self.tools = factory, []

    def begin(self, request):
        return GymConversation(self.factory(**CONSTANTS), request)


class GymConversation:
    def __init__(self, environment, request):
        self.environment = environment
        row = with_truth(environment.reset, row_of(request), request)
        offered = {**row, "seed": seed_of(request), "options": request["extra"]}
        said = settled(environment.reset(**accepted(environment.reset, offered, everything=False)))
        said = said[0] if isinstance(said, tuple) and len(said) == 2 and isinstance(said[1], dict) else said
        said = getattr(said, "observation", said)
        self.opening = {"observation": text_of(said)} if text_of(said) else {}

    def act(self, request):
        try:
            made = settled(self.environment.step(action_of(self.environment, request["text"].strip())))
        except (Exception, SystemExit) as error:
            return {"observation": f"error: {why(error)}", "failed": True}
        if isinstance(made, tuple) and len(made) in (3, 4, 5):
            ends = made[2:-1] if len(made) > 3 else made[2:]
            return {"observation": text_of(made[0]), "reward": number(made[1]), "done": any(map(bool, ends))}
        if hasattr(made, "done") and hasattr(made, "reward"):
            return {"observation": text_of(getattr(made, "observation", made)), "reward": number(made.reward),
                    "done": bool(made.done)}
        return {"error": f"step returned {type(made).__name__} where (observation, reward, terminated, truncated, info) belongs"}

    def end(self):
        if hasattr(self.environment, "close"):
            settled(self.environment.close())


class Dataset:
    """Of reasoning-gym: the row's "index" is the item, its question is put, the answer scored."""

    def __init__(self, data):
        self.data, self.tools = data, []

    def begin(self, request):
        index = request["extra"].get("index", seed_of(request))
        if not isinstance(index, int):
            raise LookupError(f"the row's column index is {index!r} where a number belongs")
        return Question(self.data, self.data[index % len(self.data)])


class Question:
    def __init__(self, data, entry):
        self.data, self.entry, self.opening = data, entry, {"observation": entry["question"]}

    def act(self, request):
        text = request["text"]
        tagged = re.findall(r"<answer>(.*?)</answer>", text, re.S)
        answer = tagged[-1] if tagged else text.rpartition("</think>")[2]
        return {"reward": number(self.data.score_answer(answer=answer.strip(), entry=self.entry)), "done": True}

    def end(self):
        pass


def plain_prompt(request):
    prompt = request["prompt"]
    return prompt if isinstance(prompt, str) else "\n".join(str(m.get("content") or "") for m in prompt)


class OpenRlhf:
    """AgentInstance: reset(states), step(states); or the older single function step(observation, action, label)."""

    def __init__(self, kind, function=None):
        self.kind, self.function, self.tools = kind, function, []

    def begin(self, request):
        return OpenRlhfConversation(self.kind(**CONSTANTS) if self.kind else None, self.function, request)


class OpenRlhfConversation:
    def __init__(self, agent, function, request):
        self.agent, self.function, self.label, self.opening = agent, function, request["ground_truth"], {}
        prompt = self.seen = plain_prompt(request)
        if agent is not None:
            states = settled(agent.reset({"observation": prompt, "label": self.label}))
            begun = states.get("observation", prompt) if isinstance(states, dict) else prompt
            if not begun.startswith(prompt):
                raise ValueError("reset returned another prompt; here it may only say more behind the row's own")
            if len(begun) > len(prompt):
                self.opening, self.seen = {"text": begun[len(prompt):]}, begun

    def act(self, request):
        action = request["text"]
        try:
            if self.agent is not None:
                made = settled(self.agent.step({"observation_text": self.seen, "action_text": action, "label": self.label,
                                                "sampling_params": None}))
            else:
                made = settled(self.function(self.seen, action, self.label, **accepted(
                    self.function, {"sampling_params": None}, everything=False)))
        except (Exception, SystemExit) as error:
            return {"observation": f"error: {why(error)}", "failed": True}
        if not isinstance(made, dict) or "rewards" not in made:
            return {"error": "step returned no dict with rewards"}
        said = made.get("environment_feedback")
        if said is None:
            after = made.get("next_observation", self.seen + action)
            if not after.startswith(self.seen + action):
                return {"error": "next_observation does not begin with what was said before"}
            said = after[len(self.seen + action):]
        self.seen += action + said
        return {"text": said, "reward": number(made["rewards"]), "done": bool(made.get("done", self.agent is None))}

    def end(self):
        pass


