"""Train a small GPT on your own text, write with it, measure it and look inside it."""

from importlib.metadata import version

__version__ = version("minigpt-cli")
