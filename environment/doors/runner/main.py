# --- which form it is ---------------------------------------------------------------------------------------------------

def bases(kind):
    return {base.__name__ for base in inspect.getmro(kind)}


def form_of(kind):
    """The form of a class; None: it is no environment."""
    names = bases(kind)
    if "BaseTool" in names:
        return "verl_tool"
    if "AgentLoopBase" in names:
        return "agent_loop"
    if names & {"AgentExecutorBase", "MultiTurnAgentExecutor"} or hasattr(kind, "execute") and kind.__name__ == "AgentExecutor":
        return "only_executor" if "MultiTurnAgentExecutor" in names else "executor"
    if callable(getattr(kind, "reset", None)) and callable(getattr(kind, "step", None)):
        first = [p for p in parameters(kind.step) if p != "self"][:1]
        return "openrlhf" if first and first[0] in ("states", "state_dict") or "AgentInstance" in kind.__name__ else "gym"
    return "trl" if callable(getattr(kind, "reset", None)) else None


def environment_of(kind, factory=None):
    form = form_of(kind)
    if form == "verl_tool":
        return VerlTools([kind])
    if form == "agent_loop":
        return Drives(LoopConversation, kind)
    if form == "executor":
        return Drives(ExecutorConversation, kind)
    if form == "openrlhf":
        return OpenRlhf(factory or kind)
    if form == "gym":
        return Gym(factory or kind)
    if form == "trl":
        return TrlEnvironment({None: factory or kind})
    raise LookupError(f"{kind.__name__} has none of reset, step, execute and run: it is no environment that is known")


def functions_of(module, wanted):
    own = {n: f for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__ and not n.startswith("_")}
    for name in wanted:
        if name not in own:
            raise LookupError(f"has no function {name}, which environment.tools names; it has {', '.join(sorted(own)) or 'none'}")
    return {name: own[name] for name in wanted} if wanted else own


def recognised(module, name, wanted):
    if name:
        value = getattr(module, name, None)
        if value is None:
            there = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__ and callable(v)]
            raise LookupError(f"has no {name}; it has {', '.join(sorted(there)) or 'nothing that can be called'}")
        return of_value(name, value)
    registry = getattr(sys.modules.get("verl.tools.function_tool"), "FUNCTION_TOOL_REGISTRY", REGISTRY) or REGISTRY
    if registry:
        kept = {n: t for n, t in registry.items() if not wanted or n in wanted}
        missing = sorted(set(wanted) - set(kept))
        if missing:
            raise LookupError(f"has no tool {missing[0]}, which environment.tools names; it has {', '.join(sorted(registry))}")
        return ToolFunctions({n: t.fn for n, t in kept.items()}, [t.tool_schema.model_dump(exclude_none=True) for t in kept.values()])
    if wanted:
        functions = functions_of(module, wanted)
        return ToolFunctions(functions, [schema_of(f, n) for n, f in functions.items()])
    classes = [k for k in vars(module).values() if inspect.isclass(k) and k.__module__ == module.__name__ and form_of(k)]
    tools = [k for k in classes if form_of(k) == "verl_tool"]
    if tools and len(tools) == len(classes):
        return VerlTools(tools)
    for known in ("environment_factory", "make_environment", "make_env"):
        if known in vars(module):
            return of_value(known, getattr(module, known))
    classes = [k for k in classes if form_of(k) != "only_executor"]
    if len(classes) > 1:
        raise LookupError(f"has several environments, {', '.join(k.__name__ for k in classes)}: say which in environment.name")
    if classes:
        return environment_of(classes[0])
    data = [v for v in vars(module).values() if hasattr(v, "score_answer") and hasattr(v, "__getitem__")]
    if len(data) == 1:
        return Dataset(data[0])
    functions = functions_of(module, [])
    if "step" in functions:
        return OpenRlhf(None, functions["step"])
    if not functions:
        raise LookupError("has no class with reset, no tool and no function step: which environment is it? (docs/environments.md)")
    return ToolFunctions(functions, [schema_of(f, n) for n, f in functions.items()])


def of_value(name, value):
    if inspect.isclass(value):
        return environment_of(value)
    if isinstance(value, dict):
        return TrlEnvironment(value)
    if hasattr(value, "score_answer") and hasattr(value, "__getitem__"):
        return Dataset(value)
    if inspect.isfunction(value) and name == "step":
        return OpenRlhf(None, value)
    if callable(value):
        probe = value(**CONSTANTS)
        return Dataset(probe) if hasattr(probe, "score_answer") else environment_of(type(probe), value)
    raise LookupError(f"{name} is {type(value).__name__}, no class and no function")


def load(path):
    sys.path.insert(0, os.path.dirname(path))
    sys.meta_path.append(StandIn())  # behind all others: what is installed comes first
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main():
    path, name, wanted, constants = sys.argv[1:5]
    try:
        CONSTANTS.update(json.loads(constants))
        made = recognised(load(path), name, json.loads(wanted))
    except BaseException as error:  # SystemExit of a script that is no module, too
        say({"error": f"{path}: {why(error)}"})
        return 3
    say({"ready": True, "tools": made.tools})
    open_now = {}
    for line in sys.stdin:
        request = json.loads(line)
        reply = {"id": request["id"]}
        try:
            if request["call"] == "begin":
                episode = made.begin(request)
                open_now[request["episode"]] = episode
                reply.update(episode.opening)
            elif request["call"] == "act":
                reply.update(open_now[request["episode"]].act(request))
            else:
                open_now.pop(request["episode"]).end()
        except (Exception, SystemExit) as error:
            reply = {"id": request["id"], "error": why(error)}
        say(reply)
    return 0


sys.exit(main())
