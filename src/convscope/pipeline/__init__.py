"""Techniques at work on a folder: planned, resumable, with receipts."""
