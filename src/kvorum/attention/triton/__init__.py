"""Attention over a plan by Triton kernels."""
