"""Pure functions on tensors, one file a theme. They know nothing of networks."""
