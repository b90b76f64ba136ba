"""Views of single techniques: ``<technique>.py`` with ``view(result) -> View``. They read fields only, never methods."""
