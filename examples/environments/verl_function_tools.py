"""verl's @function_tool: plain functions."""
from verl.tools.function_tool import function_tool


@function_tool
def add(a: int, b: int) -> str:
    """Adds two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return str(a + b)


@function_tool("shout")
async def upper(text: str) -> str:
    """Writes a text in capitals.

    Args:
        text: The text.
    """
    return text.upper()
