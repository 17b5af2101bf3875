"""Which store a server has, as its settings say."""

from __future__ import annotations

from pathlib import Path

from throughtime.errors import UserError
from throughtime.serve.settings import Settings
from throughtime.serve.store import Store
from throughtime.serve.stores.folder import FolderStore
from throughtime.serve.stores.redis import RedisStore
from throughtime.serve.stores.single import SingleStore

FILE = "sessions.db"  # in the folder of a store of one process


def opened(settings: Settings) -> Store:
    """The store of a server. Raises: UserError where it cannot be had."""
    if settings.shared is None:
        return SingleStore(settings.store / FILE, settings.durable)
    if "://" not in settings.shared:
        return FolderStore(Path(settings.shared), settings.durable, settings.lease)
    if settings.durable == "power":
        raise UserError("--durable power: of Redis its own appendfsync says so (always); leave --durable out")
    return RedisStore(settings.shared, settings.lease)
