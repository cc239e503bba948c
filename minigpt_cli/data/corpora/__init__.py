"""Where texts come from: names, cards, folders, downloads, and what is wrong with them."""
