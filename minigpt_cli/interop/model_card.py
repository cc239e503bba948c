"""`README.md` of an exported folder: what the model is, and how it was made."""

import re
from pathlib import PurePath

from minigpt_cli.runs.checkpoint import Checkpoint
from minigpt_cli.runs.folder import RunFolder
