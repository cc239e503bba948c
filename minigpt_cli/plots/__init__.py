"""Matplotlib figures of runs and models, imported so that no stranger's settings are obeyed.

Matplotlib reads `matplotlibrc` from the current folder before any other place. Every module of
this package imports Matplotlib, so this is where it is kept from that.
"""

import logging
import os.path

from minigpt_cli.errors import ConfigError
from minigpt_cli.language import _


def _exists(path: object) -> bool:
    return path != "matplotlibrc" and _real_exists(path)  # type: ignore[arg-type]


logging.getLogger("matplotlib").setLevel(logging.ERROR)  # stderr is for our messages
_real_exists, os.path.exists = os.path.exists, _exists
try:
    import matplotlib.font_manager  # noqa: F401 - keeps its fonts in a cache
except OSError as error:
    raise ConfigError(
        _("pictures need a writable folder ({error}); set MPLCONFIGDIR to one").format(error=error)
    ) from None
finally:
    os.path.exists = _real_exists
