"""The accelerators that a run can be planned for, with what their makers publish.

Peaks are for bf16 matrix products with fp32 sums, without sparsity (data sheets often print twice
that, with it). Nothing here was measured.
"""

import difflib
from dataclasses import dataclass

from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _

PER_MACHINE = 8
"""Accelerators in one machine, as in the usual servers."""


@dataclass(frozen=True)
class Accelerator:
    """A kind of accelerator."""

    name: str
    title: str
    memory_bytes: int
    flops_per_second: float
    """Peak in bf16."""
    bytes_per_second: float
    """To and from its own memory."""
    link_bytes_per_second: float
    """To another one in the same machine, in one direction."""
    network_bytes_per_second: float
    """Its share of the machine's network, in one direction."""
    source: str
    """Where the numbers are published."""


_GB, _TB, _TFLOPS = 10**9, 10**12, 10**12
_ALL = (
    # One 400 Gbit/s adapter for each H100, H200 and B200, and 200 Gbit/s for each A100, as in
    # NVIDIA's DGX servers; for the others, a machine with 100 Gbit/s in all.
    Accelerator("b200", "NVIDIA B200", 180 * _GB, 2250 * _TFLOPS, 8 * _TB, 900 * _GB, 50 * _GB,
                "NVIDIA DGX B200 data sheet"),
    Accelerator("h200", "NVIDIA H200 SXM", 141 * _GB, 989 * _TFLOPS, 4.8 * _TB, 450 * _GB,
                50 * _GB, "NVIDIA H200 data sheet"),
    Accelerator("h100", "NVIDIA H100 SXM", 80 * _GB, 989 * _TFLOPS, 3.35 * _TB, 450 * _GB,
                50 * _GB, "NVIDIA H100 data sheet"),
    Accelerator("a100", "NVIDIA A100 SXM 80GB", 80 * _GB, 312 * _TFLOPS, 2.039 * _TB, 300 * _GB,
                25 * _GB, "NVIDIA A100 data sheet"),
    Accelerator("l40s", "NVIDIA L40S", 48 * _GB, 362 * _TFLOPS, 0.864 * _TB, 32 * _GB,
                1.5 * _GB, "NVIDIA L40S data sheet"),
    Accelerator("l4", "NVIDIA L4", 24 * _GB, 121 * _TFLOPS, 0.3 * _TB, 32 * _GB, 1.5 * _GB,
                "NVIDIA L4 data sheet"),
    Accelerator("rtx4090", "NVIDIA GeForce RTX 4090", 24 * _GB, 165 * _TFLOPS, 1.008 * _TB,
                32 * _GB, 1.5 * _GB, "NVIDIA Ada GPU architecture, appendix A"),
)  # fmt: skip
ACCELERATORS = {accelerator.name: accelerator for accelerator in _ALL}
DEFAULT = "h100"


def accelerator(name: str) -> Accelerator:
    """An accelerator by its short name.

    Raises:
        ConfigError: the name is not in the table.
    """
    found = ACCELERATORS.get(name.lower())
    if found is None:
        close = difflib.get_close_matches(name.lower(), ACCELERATORS, n=2, cutoff=0.5)
        hint = (
            _("did you mean {found}?").format(found=_(" or ").join(close))
            if close
            else _("use {names}").format(names=_(", ").join(ACCELERATORS))
        )
        raise ConfigError(_("unknown GPU {name}; {hint}").format(name=name, hint=hint))
    return found
