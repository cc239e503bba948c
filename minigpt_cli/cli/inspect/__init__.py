"""What `minigpt inspect` can show: one module a view, from facts to table, picture and JSON."""
