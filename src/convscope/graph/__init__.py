"""The network as a graph of tensor operations: geometry, receptive fields, multiply-accumulate operations, bounds."""
