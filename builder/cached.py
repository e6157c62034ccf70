"""Results of steps that take no work: in this store, or in caches elsewhere.

A look-up has no effects. What is elsewhere is a result whose layers are not ``here`` yet:
only if something needs its files are its blobs fetched, and unpacked. So a build from a
remote cache moves the layers of its result and none of the stages in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final

from builder.cache_key import stacked_key
from builder.ports import RemoteCache
from builder.results import BuiltLayer, Rootfs, known
from image.digest import ChainID
from image.errors import BlobNotFound
from image.value import replace
from store.metadata import CacheRecord, ImageLayer
from store.store import Session

_FETCHES: Final = 4


class CachedResults:
    """Looks results up by key; the caches of ``remotes`` are asked in order, after the store.

    Results that were made before ``not_before_s`` do not count.
    """

    def __init__(self, session: Session, remotes: Sequence[RemoteCache], *, not_before_s: float = 0.0) -> None:
        self._session = session
        self._metadata = session.store.metadata
        self._layers = session.store.layers
        self._remotes = remotes
        self._not_before_s = not_before_s
        self._origins: dict[str, RemoteCache] = {}
        self._elsewhere: list[CacheRecord] = []
        self._used: set[str] = set()

    def leads_to(self, definition: str) -> str | None:
        """The key that a step had when its inputs were made as ``definition`` says."""
        record = self._metadata.cached(definition)
        if record is not None:
            return record.label
        for remote in self._remotes:
            record = remote.find(definition)
            if record is not None and record.chain_id is None:
                self._elsewhere.append(record)
                return record.label
        return None

    def find(self, key: str, base: Rootfs, *, linked: bool = False) -> Rootfs | None:
        """A recorded result on exactly this base; what of it is in the store is held by the session.

        A ``linked`` layer is the same on any base. Where it is not unpacked on this one, it is not ``here``.
        """
        above = stacked_key(base.key, key) if linked else key
        record = self._young(self._metadata.cached(key))
        layer = None if record is None else _layer_on(record, base, linked=linked)
        if layer is not None and (found := self._stored(above, layer, base)):
            self._used.add(key)
            return found
        for remote in self._remotes:
            record = self._young(remote.find(key))
            layer = _layer_on(record, base, linked=linked) if record is not None else None
            if record is not None and layer is not None:
                self._elsewhere.append(replace(record, chain_id=layer.chain_id))
                self._origins[str(layer.blob.digest)] = remote
                return Rootfs(above, (), known((*base.stack.result(), layer)), here=False)
        return None

    def _young(self, record: CacheRecord | None) -> CacheRecord | None:
        return record if record is not None and record.created_s >= self._not_before_s else None

    def _stored(self, key: str, built: BuiltLayer, base: Rootfs) -> Rootfs | None:
        if not self._session.reuse(built.blob.digest):
            return None
        stack = known((*base.stack.result(), built))
        if not self._session.hold_layers(built.chain_id):
            return Rootfs(key, (), stack, here=False)
        if not base.here:
            return Rootfs(key, self._layers.directories_of(built.chain_id), stack)
        return Rootfs(key, (self._layers.get(built.chain_id).directory, *base.directories), stack)

    def fetch(self, found: Rootfs) -> Rootfs:
        """Have the layers of a result here, unpacked and held by the session, and remembered for next time.

        Raises BlobNotFound when no cache has a blob any more; what a remote raises; DigestMismatch.
        """
        from store.unpacking import Unpacking  # a build from the store alone unpacks nothing

        stack = found.stack.result()
        wanted = [(ImageLayer(layer.chain_id, layer.diff_id, layer.blob.digest), layer.blob) for layer in stack]
        with Unpacking(self._session, wanted) as unpacking, ThreadPoolExecutor(_FETCHES, "fetch") as pool:
            arriving = {pool.submit(self._fetch_blob, layer): layer for layer in stack}
            try:
                for arrived in as_completed(arriving):
                    arrived.result()
                    unpacking.start(arriving[arrived].blob)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            unpacking.finish()
        self._remember({layer.chain_id for layer in stack})
        return Rootfs(found.key, self._layers.directories_of(stack[-1].chain_id), found.stack)

    def _remember(self, chains: set[ChainID]) -> None:
        """Make records from elsewhere the store's own, now that their layers are here."""
        seen = tuple(self._elsewhere)
        kept = {record.key: record for record in seen if record.chain_id in chains}
        links = [record for record in seen if record.chain_id is None and record.label in kept]
        for record in (*kept.values(), *links):
            size = self._layers.get(record.chain_id).size if record.chain_id else 0
            self._metadata.add_cached(replace(record, size=size))

    def _fetch_blob(self, layer: BuiltLayer) -> None:
        """Have one layer's blob in the store. Raises BlobNotFound."""
        blob = layer.blob
        if self._session.reuse(blob.digest):
            return
        origin = self._origins.get(str(blob.digest))
        if origin is None:
            raise BlobNotFound(f"blob {blob.digest} of a cached step is not in the store: build with --no-cache")
        origin.fetch(self._session, blob)

    def abort(self) -> None:
        """Stop what is being fetched."""
        for remote in self._remotes:
            remote.abort()

    def remember_use(self) -> None:
        """Tell the store which of its results served, so that they are the last to be pruned."""
        self._metadata.touch_cached(self._used)


def _layer_on(record: CacheRecord, base: Rootfs, *, linked: bool) -> BuiltLayer | None:
    """The layer of a record, if it was made on exactly this base or fits on any."""
    if record.chain_id is None or record.diff_id is None or record.blob is None:
        return None
    below = base.stack.result()
    chain = below[-1].chain_id.then(record.diff_id) if below else ChainID(str(record.diff_id))
    if chain != record.chain_id and not linked:
        return None
    return BuiltLayer(chain, record.diff_id, record.blob, record.created_s)
