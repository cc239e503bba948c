"""The next token's distribution as bars."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from minigpt_cli.inspection.next_token import NextToken
from minigpt_cli.inspection.tokens import visible
from minigpt_cli.plots.canvas import OKABE_ITO, fitted, in_picture, name_in, new_figure

_CUTS = (("vermilion", "--"), ("blue", ":"))
_LONGEST_TOKEN, _LONGEST_PROMPT = 2.0, 4.0  # inches


def draw_next(next_token: NextToken, model: str) -> Figure:
    """One panel per temperature, all on one scale, and one bar per token.

    Lines show where each cut would fall.

    The title names the `model`.
    """
    count = len(next_token.tokens)
    figure = new_figure(10, 2.2 + 0.2 * count)
    figure.get_layout_engine().set(w_pad=0.15)  # type: ignore[union-attr,call-arg]
    panels = figure.subplots(1, len(next_token.choices), sharey=True, squeeze=False)[0]
    most = max(max(choice.probabilities) for choice in next_token.choices)
    for panel, choice in zip(panels, next_token.choices, strict=True):
        panel.barh(range(count), choice.probabilities, color=OKABE_ITO["sky blue"])
        panel.set_title(
            in_picture("probability at temperature {temperature:g}").format(
                temperature=choice.temperature
            ),
            fontsize=10,
        )
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        panel.set_xlim(0, most * 1.05)
        panel.tick_params(axis="x", labelsize=8)
        for cut, (color, style) in zip(choice.cuts, _CUTS, strict=False):
            beyond = in_picture(" (beyond these)") if cut.kept > count else ""
            panel.axhline(
                cut.kept - 0.5, color=OKABE_ITO[color], linestyle=style,
                label=in_picture("{setting} keeps {kept:,}, {probability:.1%}").format(
                    setting=cut.setting, kept=cut.kept, probability=cut.probability
                ) + beyond,
            )  # fmt: skip
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), fontsize=8, frameon=False)
    names = [fitted(visible(token), _LONGEST_TOKEN, 9) for token in next_token.tokens]
    panels[0].set_yticks(range(count), names, fontsize=9)
    panels[0].set_ylim(count - 0.4, -0.6)
    panels[0].set_ylabel(in_picture("next token"))
    prompt = fitted(visible(next_token.prompt), _LONGEST_PROMPT, 10, keep="end")
    figure.suptitle(
        in_picture("After “{prompt}”\n{model}").format(prompt=prompt, model=name_in(figure, model)),
        fontsize=10,
    )
    return figure
