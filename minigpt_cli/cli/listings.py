"""What `minigpt train --list-presets` and `--list-settings` print."""

from minigpt_cli.config.presets import preset_names, shipped_folder
from minigpt_cli.language import _


def list_presets(as_json: bool) -> None:
    """Prints the shipped presets."""
    from minigpt_cli.cli.console import out, print_json
    from minigpt_cli.cli.render import count, fit, grid
    from minigpt_cli.config.loading import load_run_config

    configs = {name: load_run_config(name) for name in preset_names()}
    if as_json:
        print_json({name: config.model_dump(mode="json") for name, config in configs.items()})
        return
    table = grid(
        _("preset"),
        _("purpose"),
        _("family"),
        _("size"),
        _("block"),
        _("steps"),
        text_columns=4,
        prose=[1],
    )
    table.caption = _("size: layers/heads/width")
    for name, config in configs.items():
        model = config.model
        size = f"{model.n_layer}/{model.n_head}/{model.n_embd}"
        numbers = [count(n) for n in (model.block_size, config.train.max_iters)]
        table.add_row(name, _(first_sentence(name)), model.family, size, *numbers)
    out.print(fit(table, out.width))


def list_settings(as_json: bool) -> None:
    """Prints every setting with its default and limits."""
    from minigpt_cli.cli.console import out, print_json
    from minigpt_cli.cli.render import fit, grid, raw
    from minigpt_cli.config import listing

    settings = listing.list_settings()
    if as_json:
        print_json(listing.as_json(settings))
        return
    table = grid(_("setting"), _("default"), _("what it does"), text_columns=3, prose=[1, 2])
    for setting in settings:
        family = _(" ({family} only)").format(family=setting.family) if setting.family else ""
        default = setting.default or "-"
        limits = f" [{_limits(setting.limits)}]" if setting.limits else ""
        table.add_row(setting.name, raw(default), raw(f"{_(setting.text)}{family}{limits}"))
    out.print(fit(table, out.width))


def _limits(limits: str) -> str:
    """Limits such as `above 0, up to 1` in the user's language."""
    parts = (limit.rpartition(" ") for limit in limits.split(", "))
    return ", ".join(_(word) + space + number for word, space, number in parts)


def first_sentence(preset: str) -> str:
    """The first sentence of the comment at the top of a preset."""
    text = (shipped_folder("configs") / f"{preset}.toml").read_text(encoding="utf-8")
    comment = " ".join(line[1:].strip() for line in text.splitlines()[:4] if line.startswith("#"))
    return comment.partition(". ")[0].partition(";")[0].rstrip(".")
