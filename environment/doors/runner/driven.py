# --- environments that drive the model themselves ----------------------------------------------------------------------

MARK = 0xF0000  # characters of the private planes stand for whole messages


class Ids(list):
    def tolist(self):
        return list(self)


class TextTokens:
    """A tokenizer whose tokens are characters: what such an environment puts together can be read again. A message is one."""
    eos_token, eos_token_id, pad_token, pad_token_id = "", 0, "", 0

    def __init__(self):
        self.messages = []

    def __call__(self, text, return_tensors=None, **_):
        ids = self.encode(text)
        return {"input_ids": [ids] if return_tensors else ids}

    def encode(self, text, **_):
        return Ids(ord(c) for c in text)

    def decode(self, ids, **_):
        return "".join(chr(i) for i in ids)

    def apply_chat_template(self, messages, tokenize=True, return_dict=False, **_):
        text = ""
        for message in messages:
            self.messages.append(message)
            text += chr(MARK + len(self.messages) - 1)
        ids = self.encode(text)
        return text if not tokenize else {"input_ids": ids} if return_dict else ids

    def parts(self, text):
        """(messages, raw text): what stands in front of, between and behind the messages is raw."""
        said = [self.messages[ord(c) - MARK] for c in text if ord(c) >= MARK]
        return said, "".join(c for c in text if ord(c) < MARK)


class Output(types.SimpleNamespace):
    """What generate gives, in the words of both frameworks."""


class Driven:
    """A coroutine that asks for answers: it runs until it asks, or ends."""

    def __init__(self, prompt):
        self.tokens, self.asked, self.answer, self.seen, self.task = TextTokens(), None, None, None, None
        self.prompt = prompt

    async def generate(self, *positional, prompt_ids=None, **_):
        ids = prompt_ids if prompt_ids is not None else positional[0]
        text = self.tokens.decode(ids)
        self.answer = loop().create_future()
        self.asked.set_result(text)
        said = await self.answer
        self.seen = text + said
        made = self.tokens.encode(said)
        return Output(token_ids=made, log_probs=None, routed_experts=None, stop_reason="completed", num_preempted=0, extra_fields={},
                      outputs=[Output(token_ids=made, text=said, finish_reason="stop", logprobs=None)])

    def turn(self):
        """Until it asks again: what it says; its end: its reward."""
        self.asked = asyncio.Future(loop=loop())
        if self.task is None:
            self.task = loop().create_task(self.work())
        settled(asyncio.wait({self.task, self.asked}, return_when=asyncio.FIRST_COMPLETED))
        if not self.asked.done():
            return {"done": True, "reward": self.score(self.task.result())}
        text = self.asked.result()
        if self.seen is None:
            return self.first(text)
        if not text.startswith(self.seen):
            return {"error": "asked to go on from another text than what was said so far"}
        messages, raw = self.tokens.parts(text[len(self.seen):])
        return {"messages": messages, "text": raw}

    def begun(self):
        self.opening = self.turn()
        return self

    def first(self, text):
        messages, raw = self.tokens.parts(text)
        prompt = self.prompt
        if isinstance(prompt, str):
            if not raw.startswith(prompt):
                return {"error": "began with another prompt than the row's"}
            return {"messages": messages, "text": raw[len(prompt):]}
        shown = [{k: m.get(k) for k in ("role", "content")} for m in messages]
        if shown[:len(prompt)] != [{k: m.get(k) for k in ("role", "content")} for m in prompt]:
            return {"error": "began with another prompt than the row's"}
        return {"messages": messages[len(prompt):], "text": raw}

    def act(self, request):
        self.answer.set_result(request["text"])
        return self.turn()

    def end(self):
        if self.task is not None and not self.task.done():
            self.task.cancel()
            settled(asyncio.wait({self.task}))


class LoopMethods:
    """What of AgentLoopBase touches tokens or images, over TextTokens."""

    async def process_vision_info(self, messages):
        return {}

    process_multi_modal_info = process_vision_info

    def _assert_mm_supported(self, has_multi_modal):
        if has_multi_modal:
            raise ValueError("only text")

    def _get_mm_processor_kwargs(self, audio_data=None):
        return {}

    @staticmethod
    def build_sglang_video_payload(videos, mm_inputs):
        return None

    async def apply_chat_template(self, messages, **_):
        return self.tokenizer.apply_chat_template(messages)

    async def ct_build_initial_tokens(self, messages, **_):
        return self.tokenizer.apply_chat_template(messages)

    async def ct_merge_context_msg(self, previous_messages, updated_messages, runtime_token_ids, response_mask,
                                   response_logprobs=None, **_):
        more = self.tokenizer.apply_chat_template(updated_messages[len(previous_messages):])
        return Output(token_ids=Ids(runtime_token_ids + more)), response_mask + [0] * len(more), response_logprobs

    async def ct_merge_assistant_token(self, runtime_token_ids, assistant_token_ids, response_mask, response_logprobs=None,
                                       assistant_logprobs=None):
        return (Output(token_ids=Ids(runtime_token_ids + assistant_token_ids)), response_mask + [1] * len(assistant_token_ids),
                response_logprobs)


class Settings(dict):
    """A configuration of which anything may be asked."""
    prompt_length = response_length = max_model_len = 1 << 30

    def __getattr__(self, name):
        return None


class LoopConversation(Driven):
    def __init__(self, kind, request):
        super().__init__(request["prompt"])
        both = type(kind.__name__, (LoopMethods, kind), {"__init__": lambda self: None})
        self.agent = both()
        settings = Settings(CONSTANTS)
        self.agent.__dict__.update(config=settings, rollout_config=settings, data_config=settings, server_manager=self,
                                   tokenizer=self.tokens, processor=None, loop=loop(), apply_chat_template_kwargs={},
                                   prompt_length=1 << 30, response_length=1 << 30)
        row = row_of(request)
        row.setdefault("raw_prompt", request["prompt"])
        row.setdefault("reward_model", {"ground_truth": request["ground_truth"]})
        row.setdefault("extra_info", request["extra"])
        self.work = lambda: self.agent.run({}, **row)

    @staticmethod
    def score(output):
        return number(getattr(output, "reward_score", None))


class ExecutorConversation(Driven):
    def __init__(self, kind, request):
        super().__init__(plain_prompt(request))
        params = types.SimpleNamespace(max_tokens=1 << 30, logprobs=None)
        self.agent = kind(**CONSTANTS)
        self.work = lambda: self.agent.execute(self.prompt, request["ground_truth"], params, 1 << 30, self.tokens, self)

    @staticmethod
    def score(output):
        return number(output.get("reward")) if isinstance(output, dict) else None


class Drives:
    def __init__(self, conversation, kind):
        self.conversation, self.kind, self.tools = conversation, kind, []

    def begin(self, request):
        return self.conversation(self.kind, request).begun()


