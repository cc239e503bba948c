"""The commands: parse, call one core function, render. Only these rooms know the terminal."""
