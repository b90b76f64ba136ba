"""Networks watched while they are trained. The package is not called `watch`, which would shadow the function."""
