"""The tool of bench/tools/task.py, in the form that TRL's tools=[..] and environment.kind = "python" take alike."""


def calculate(a: int, b: int) -> str:
    """Adds two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return str(int(a) + int(b))
