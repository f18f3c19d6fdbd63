"""How a network learns: one fold, and fold after fold."""
