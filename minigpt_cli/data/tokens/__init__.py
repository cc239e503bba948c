"""Token ids on disk, in one file or in shards, and how they get there."""
