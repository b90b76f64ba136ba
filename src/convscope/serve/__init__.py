"""An atlas served with its network at hand: what a page in a file cannot compute."""
