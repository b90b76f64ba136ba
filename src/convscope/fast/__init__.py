"""CPU speed: folded batch norms, fused operations, Winograd convolutions, reused memory. Optional: same values up to rounding."""
