"""`minigpt export`: a model in another format, a module each."""
