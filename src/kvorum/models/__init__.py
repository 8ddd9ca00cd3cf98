"""Models: catalogue, files, loading, the probe of their rotation, packed weights, and the runners of their layers."""
