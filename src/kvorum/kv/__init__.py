"""Pages, blocks, spans and views: pure torch, no model."""

from kvorum.kv.block import LATENT, Block
from kvorum.kv.cache import CacheConfig, CacheShape, KVCache
from kvorum.kv.pool import PagePool
from kvorum.kv.span import Gap, Span
from kvorum.kv.view import View

__all__ = ["LATENT", "Block", "CacheConfig", "CacheShape", "Gap", "KVCache", "PagePool", "Span", "View"]
