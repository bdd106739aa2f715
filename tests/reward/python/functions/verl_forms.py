"""Forms of verl's reward functions beside the plain one: asynchronous, over a batch, over typed ground truths."""
import asyncio

meeting = None


async def together(data_source, solution_str, ground_truth, extra_info=None):
    """Returns only once all four answers of the group are in here side by side."""
    global meeting
    meeting = meeting or asyncio.Event()
    together.inside += 1
    if together.inside == 4:
        meeting.set()
    await asyncio.wait_for(meeting.wait(), timeout=5)
    return {"score": float(len(solution_str)), "extra": 1}


together.inside = 0


def batch(data_sources, solution_strs, ground_truths, extra_infos, bonus=0.0):
    return [{"score": len(solution) + bonus, "source": len(source)} for source, solution in zip(data_sources, solution_strs)]


def in_targets(data_source, solution_str, ground_truth, extra_info=None):
    """The ground truth as the data set has it: {"target": [..]}."""
    return solution_str in ground_truth["target"]


def first_of_two(data_source, solution_str, ground_truth, extra_info=None):
    return 0.75, "a remark"


def raises_on_b(data_source, solution_str, ground_truth, extra_info=None):
    if solution_str == "b":
        raise KeyError("b")
    return 1.0
