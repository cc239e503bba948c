"""Other programs' model formats, a module each; the rest of the package knows none of them."""
