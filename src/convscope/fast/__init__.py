"""CPU speed: folded batch norms, fused operations, Winograd convolutions, memory that is kept. Optional; values are equal up to rounding."""
