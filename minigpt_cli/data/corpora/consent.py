"""Which of the files that a checkpoint or a saved run names may be read without asking.

A stranger's checkpoint can name any path, such as a private key, as its training text.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path

from minigpt_cli.config.presets import shipped_folder
from minigpt_cli.config.schema import DataConfig
from minigpt_cli.errors import CorpusError, reraise_as
from minigpt_cli.language import _


def check_named(
    data: DataConfig, fingerprint: str, data_dir: Path, named: Collection[str] = ()
) -> None:
    """Checks that the user has named a model's text, or works in its folder.

    Allowed are known corpora, what is visible in the current folder, and a text that has been
    prepared in this data folder before.

    Args:
        data: the model's settings, which name its texts.
        fingerprint: the prepared text's, as the model has it.
        data_dir: where prepared texts are kept.
        named: settings that are the user's own, such as `data.corpus`.

    Raises:
        CorpusError: a source is another file.
    """
    known = {path.stem for path in shipped_folder("data").glob("*.toml")}
    texts = {"data.corpus": data.corpus, "data.val_corpus": data.val_corpus}
    others = [
        (setting, source)
        for setting, sources in texts.items()
        for source in sources
        if setting not in named and source not in known
    ]
    if not others or _was_prepared(fingerprint, data_dir):
        return
    for setting, source in others:
        with reraise_as(CorpusError, source, "read"):
            here, path = Path(os.path.realpath(".")), Path(os.path.realpath(source))
            inside = path.is_relative_to(here)
            hidden = inside and any(part.startswith(".") for part in path.relative_to(here).parts)
        if not inside or hidden:
            problem = (
                _("{source}: the model asks for this file, and it is hidden")
                if hidden
                else _("{source}: the model asks for this file, and it is outside {here}")
            ).format(source=source, here=here)
            fix = _("if it is your text, run the command in its folder or name it")
            # A stranger chose the name: it is not offered for pasting into a shell.
            raise CorpusError(
                problem + _("; {hint}").format(hint=fix), settings=(f"{setting}=FILE",)
            )


def _was_prepared(fingerprint: str, data_dir: Path) -> bool:
    if re.fullmatch("[0-9a-f]{16}", fingerprint) is None:
        return False
    with reraise_as(CorpusError, data_dir, "read"):
        return any(data_dir.glob(f"*/{fingerprint}"))
