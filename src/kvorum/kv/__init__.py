"""Pages, blocks, spans and views: pure torch, no model."""

from kvorum.kv.block import LATENT, Block
from kvorum.kv.pool import CacheShape, PagePool
from kvorum.kv.view import Gap, Item, Span, View

__all__ = ["LATENT", "Block", "CacheShape", "Gap", "Item", "PagePool", "Span", "View"]
