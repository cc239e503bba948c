"""How the views of a text show its tokens on the terminal."""

from minigpt_cli.cli.console import in_unicode, print_note
from minigpt_cli.cli.inspect.loaded import Loaded
from minigpt_cli.inspection.tokens import visible


def name_token(token: str) -> str:
    """A token as it can be told from others; in ASCII a space is `_` and the rest as in Python."""
    if in_unicode():
        return visible(token)
    return ascii(token)[1:-1].replace("_", r"\x5f").replace(" ", "_")


def note_unknown(loaded: Loaded, text: str) -> None:
    """Says that a text holds words that the model has no token for."""
    tokenizer = loaded.checkpoint.tokenizer
    unknown = tokenizer.encode(text).count(tokenizer.unknown_id or 0)
    if unknown and tokenizer.unknown_id is not None:
        print_note(f"{unknown:,} of its words are <unk> to the model, which never saw them.")


def note_left_out(left_out: int, read: int) -> None:
    """Says that a text is longer than what the model sees at once."""
    if left_out:
        print_note(
            f"The text is longer than the model's window: its first {left_out:,} tokens are left "
            f"out, the last {read:,} are read."
        )
