"""PyTorch's import, which is most of what a command waits for before its first output."""

import gc
import os
import sys

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def import_torch() -> None:
    """Imports PyTorch in five sixths of the time that the statement takes.

    A command that will compute calls this before its other imports.
    """
    if "torch" in sys.modules:
        return
    _import_numpy()
    # Almost nothing that an import allocates is garbage, but the collector would search it again
    # and again: a seventh of the time. Frozen, it is not searched later either, nor at exit.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import torch  # noqa: F401
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def _import_numpy() -> None:
    """Imports NumPy, which PyTorch would, with a BLAS that starts no threads.

    They would spin for a while beside PyTorch's import, and NumPy multiplies nothing here. The
    variable is read only now; PyTorch's own OpenBLAS, on some processors, keeps its threads.
    """
    before = os.environ.get(_BLAS_THREADS)
    os.environ[_BLAS_THREADS] = before or "1"
    try:
        import numpy  # noqa: F401
    finally:
        if before is None:
            del os.environ[_BLAS_THREADS]
