"""`minigpt export`: a model for other programs and other people, a module per target."""
