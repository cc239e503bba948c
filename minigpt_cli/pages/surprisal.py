"""The page of `minigpt inspect surprisal`: a text colored by how much it surprised a model."""

from minigpt_cli.inspection.surprisal import Scored, Surprisal, level_names, trimmed
from minigpt_cli.io.text import printable
from minigpt_cli.language import _
from minigpt_cli.pages.render import render


def surprisal_page(
    found: Surprisal, checkpoint: str, text: str, summary: list[tuple[str, str]]
) -> str:
    """Renders the hardest passages and then the text, as HTML.

    Args:
        found: the measured text.
        checkpoint: what to call the model.
        text: what to call the text.
        summary: names and values for the table at the top; see `summary_rows`.
    """
    kept = sum(len(part.text) for part in found.beginning)
    return render(
        "surprisal.html.jinja",
        checkpoint=checkpoint,
        file=text,
        summary=summary,
        found=found,
        legend=level_names(),
        shown=_shown,
        trimmed=trimmed,
        part=excerpt_note(kept, found),
    )


def summary_rows(found: Surprisal) -> list[tuple[str, str]]:
    """The totals of a measured text, as names and values."""
    rows = [
        (
            _("size"),
            _("{characters:,} characters, {tokens:,} tokens predicted").format(
                characters=found.characters, tokens=found.tokens
            ),
        ),
        (
            _("bits per byte"),
            _("{bits_per_byte:.4f} ({bits:,} bits total)").format(
                bits_per_byte=found.bits_per_byte, bits=round(found.bits)
            ),
        ),
        (
            _("context"),
            _("at least {context:,} tokens before each (minigpt eval: 1)").format(
                context=found.context
            ),
        ),
    ]
    if found.unknown_tokens:
        share = found.unknown_tokens / found.tokens
        rows.append(
            (
                _("unknown"),
                _("{share:.1%} of the tokens are <unk>; their bytes do not count").format(
                    share=share
                ),
            )
        )
    return rows


def excerpt_note(characters: int, found: Surprisal) -> str | None:
    """Says how much of a text is shown; None for all of it."""
    if characters >= found.characters:
        return None
    return _("The first {shown:,} of {characters:,} characters.").format(
        shown=characters, characters=found.characters
    )


def _shown(part: Scored) -> str:
    """The part's text; a line end that was a surprise gets a visible sign."""
    text = printable(part.text.replace("\r", ""))
    return text.replace("\n", "↵\n") if part.level else text
