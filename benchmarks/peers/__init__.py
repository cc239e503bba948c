"""Workers: minigpt and what people use instead, each in a process of its own, for `benchmarks`."""
