"""A page to play with a network: what is typed is read step by step, and its past can be changed."""
