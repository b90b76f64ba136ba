"""Folders of feature visualizations: made, read, and single images made again from their receipts."""
