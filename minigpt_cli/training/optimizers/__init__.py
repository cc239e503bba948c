"""What changes the weights: Muon, AdamW, and both together as the optimizer of a model."""
