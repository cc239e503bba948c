"""How the views show tokens on the terminal, and what a model cannot read of a text."""

from typing import TYPE_CHECKING

from minigpt_cli.cli.console import in_unicode, print_note
from minigpt_cli.language import _

if TYPE_CHECKING:
    from minigpt_cli.runs.checkpoint import Checkpoint


def name_token(token: str) -> str:
    """A token's unambiguous name; in ASCII a space is `_` and the rest is escaped as in Python."""
    from minigpt_cli.inspection.tokens import visible

    if in_unicode():
        return visible(token)
    return ascii(token)[1:-1].replace("_", r"\x5f").replace(" ", "_")


def note_unread(checkpoint: "Checkpoint", text: str, left_out: int, read: int) -> None:
    """Notes the words that the model has no token for, and what is longer than its window."""
    tokenizer = checkpoint.tokenizer
    unknown = tokenizer.encode(text).count(tokenizer.unknown_id or 0)
    if unknown and tokenizer.unknown_id is not None:
        print_note(
            _("{unknown:,} of its words are not in the model's vocabulary (<unk>).").format(
                unknown=unknown
            )
        )
    if left_out:
        print_note(
            _(
                "The text is longer than the model's window: it reads the last {read:,} "
                "tokens, without the first {left_out:,}."
            ).format(read=read, left_out=left_out)
        )
