"""What TRL 1.16 hands to a reward function beside texts: token ids, the trainer's state, loggers, the row's columns."""
import asyncio


class Overlong:
    """A callable that a factory made, as those of trl.rewards: it wants the tokens and no text."""
    def __init__(self, limit, slack):
        self.limit, self.slack = limit, slack

    def __call__(self, completion_ids, **kwargs):
        return [max(-1.0, min(0.0, (self.limit - self.slack - len(ids)) / self.slack)) for ids in completion_ids]


overlong = Overlong(limit=5, slack=4)


def logging_reward(prompts, completions, log_extra, log_metric, trainer_state, **kwargs):
    """Reads the right answer as a column of the data set, which it only knows from **kwargs."""
    log_metric("step", trainer_state.global_step)
    log_extra("size", [len(completion) for completion in completions])
    log_extra("words", completions)
    return [float(completion == answer) for completion, answer in zip(completions, kwargs["answer"])]


def wants_state(completions, trainer_state, **kwargs):
    return [trainer_state.epoch for _ in completions]


def half_of(completions, share, **kwargs):
    return [share for _ in completions]


queue = None


async def with_session(completions, **kwargs):
    """Keeps something of its event loop from call to call, as an HTTP session would."""
    global queue
    if queue is None:
        queue = asyncio.Queue()

        async def worker():
            while True:
                text, done = await queue.get()
                done.set_result(float(len(text)))

        asyncio.get_running_loop().worker = asyncio.create_task(worker())
    waiting = [asyncio.get_running_loop().create_future() for _ in completions]
    for text, done in zip(completions, waiting):
        queue.put_nowait((text, done))
    return list(await asyncio.wait_for(asyncio.gather(*waiting), timeout=5))


def only_some(completions, **kwargs):
    """None where it does not apply."""
    return [None if "?" in completion else 0.5 for completion in completions]
