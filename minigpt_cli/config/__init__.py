"""Settings: their schema, the presets, and how a preset and overrides become a `RunConfig`."""
