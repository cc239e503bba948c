"""Settings: their schema, the presets, and how a file and overrides become one `RunConfig`."""
