"""What is computed in C where the machine has a compiler; PyTorch computes the same elsewhere."""
