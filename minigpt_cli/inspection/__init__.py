"""What checkpoints, models, texts and runs contain, as dataclasses; `cli/` shows them."""
