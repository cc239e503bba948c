"""Files and text from outside: atomic writes, strict JSON, safe characters."""
