"""TRL's environment_factory: reset begins a conversation, the other public methods are tools, get_reward is the end."""


class GuessTheNumber:
    def reset(self, answer=None, **row):
        self.number, self.tries, self.found = int(answer), 0, False
        return "I think of a number from 1 to 20. Guess it with the tool."

    def guess(self, number: int) -> str:
        """Says whether the secret number is higher or lower.

        Args:
            number: The guess.
        """
        self.tries += 1
        if not 1 <= number <= 20:
            raise ValueError("the number is one of 1 to 20")
        self.found = self.found or number == self.number
        return "right" if number == self.number else "higher" if number < self.number else "lower"

    def get_reward(self) -> float:
        return 1.0 / self.tries if self.found else 0.0
