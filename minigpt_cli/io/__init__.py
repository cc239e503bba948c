"""Files and untrusted text: atomic writes, strict JSON, safe characters."""
