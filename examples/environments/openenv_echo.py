"""An Environment of OpenEnv (pip install openenv-core), in this process: no server, no container."""
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State


class SayAction(Action):
    message: str


class SaidObservation(Observation):
    echo: str


class EchoEnvironment(Environment):
    def __init__(self):
        super().__init__()
        self._state = State(step_count=0)

    def reset(self, seed=None, episode_id=None, **kwargs) -> SaidObservation:
        self._state = State(episode_id=episode_id, step_count=0)
        return SaidObservation(echo="Say something long.")

    def step(self, action: SayAction, timeout_s=None, **kwargs) -> SaidObservation:
        self._state.step_count += 1
        return SaidObservation(echo=action.message, reward=min(1.0, len(action.message) / 20), done=self._state.step_count >= 2)

    @property
    def state(self) -> State:
        return self._state
