"""One training run on several processes: how they meet, agree, share the work and the weights."""
