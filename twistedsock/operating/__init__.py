"""What an operator does beside running a bridge: keys, tokens, and a look at what a file of options allows whom."""
