"""Results, one file per technique: fields, methods, summary and view. Pure NumPy; a result shows, saves and loads itself without torch."""
