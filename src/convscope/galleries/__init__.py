"""Galleries of feature visualizations: made, and single images made again from their receipts."""
