"""Calls a reward function the way its own framework does, without Plumb. Arguments: FILE STYLE FUNCTION; a group as JSON on
standard input: {"prompt", "messages", "completions", "ground_truth", "extra"}. Prints one number or null an answer."""
import importlib.util
import json
import sys

path, style, name = sys.argv[1:4]
spec = importlib.util.spec_from_file_location("reward", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
function = getattr(module, name)
group = json.load(sys.stdin)
answers, truth, extra = group["completions"], group["ground_truth"], group["extra"]
if style == "trl":
    count = len(answers)
    values = function(prompts=[group["messages"]] * count,
                      completions=[[{"role": "assistant", "content": answer}] for answer in answers],
                      ground_truth=[truth] * count, completion_ids=None, trainer_state=None,
                      **{key: [value] * count for key, value in extra.items()})
elif style == "verl":
    values = [function(data_source=extra.get("data_source", ""), solution_str=answer, ground_truth=truth,
                       extra_info=extra.get("extra_info", extra)) for answer in answers]
    values = [value["score"] if isinstance(value, dict) else value for value in values]
else:
    values = function(queries=[group["prompt"] + answer for answer in answers], prompts=[group["prompt"]] * len(answers),
                      labels=[truth] * len(answers))["rewards"]
print(json.dumps([None if value is None else float(value) for value in values]))
