"""TRL's tools=[..]: functions with types and a docstring of Google's form."""
from typing import Literal


def convert(value: float, unit: Literal["km", "miles"]) -> str:
    """Converts a distance.

    Args:
        value: How far.
        unit: What it is in; the result is in the other one.
    """
    return f"{value / 1.609344:.2f} miles" if unit == "km" else f"{value * 1.609344:.2f} km"


async def word_count(text: str) -> int:
    """Counts words.

    Args:
        text: The text.
    """
    return len(text.split())
