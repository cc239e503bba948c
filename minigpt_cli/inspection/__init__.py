"""Facts about checkpoints, models, texts and runs, as dataclasses; `cli/` shows them."""
