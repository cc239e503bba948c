"""Train a small GPT on your own text, write with it, measure it and look inside it."""


def __getattr__(name: str) -> str:
    if name == "__version__":  # looked up only when asked for: a twentieth of a second at the start
        from importlib.metadata import version

        return version("minigpt-cli")
    raise AttributeError(name)
