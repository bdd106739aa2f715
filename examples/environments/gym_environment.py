"""Gym's reset and step: what the policy writes is the action."""


class HigherLower:
    def reset(self, seed=None, options=None):
        self.number, self.steps = 1 + (seed or 0) % 20, 0
        return "I think of a number from 1 to 20. Write a number.", {}

    def step(self, action: int):
        self.steps += 1
        right = action == self.number
        said = "right" if right else "higher" if action < self.number else "lower"
        return said, float(right), right, self.steps >= 6, {"steps": self.steps}
