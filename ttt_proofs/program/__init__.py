"""What loops are made of: expressions, operations, coefficients, update rules. SymPy, no torch."""
