"""Latent sets: clips encoded once (`dfdbench data encode`), then streamed to training."""
