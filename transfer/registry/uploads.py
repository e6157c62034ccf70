"""Uploads of blobs: in one request, streamed, or in chunks that survive a broken connection.

One request is what registries do best, and needs the digest first. A stream's digest is
known at its end; chunks can be taken up where they stopped, also by another process that
kept ``Upload``.

Spec: distribution-spec v1.1, "Pushing blobs".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import cycle
from typing import TYPE_CHECKING, Final

from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import RegistryError
from image.value import dataclass, replace
from transfer.registry import wire
from transfer.registry.blobs import Blobs
from transfer.registry.transport import Body, Reply
from transfer.registry.wire import Request

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_OCTETS: Final = {"Content-Type": "application/octet-stream"}
_TAKEN: Final = frozenset({201, 202, 204})
_LARGEST_CHUNK: Final = 64 << 20
"""A registry that wants larger chunks gets none: they are held in memory."""
_SMALLEST_PIECE: Final = 1 << 20
_MAX_PATCHES: Final = 12
"""Requests in which one chunk must go through."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that the registry has opened and waits for at ``location``.

    ``offset`` bytes have arrived; chunks but for the last need ``chunk_minimum`` bytes.
    """

    location: str
    offset: int = 0
    chunk_minimum: int = 0


class Uploads(Blobs):
    """Nothing that was uploaded is visible before the registry has checked its digest."""

    def begin_upload(self, *, mount: Digest | None = None, source: str = "") -> Upload | None:
        """Open an upload; None when ``mount`` linked the blob from the repository ``source``.

        A registry that can't mount opens an upload instead, or refuses: then it is asked plainly.
        A repository that is missing is made first, where we were given the means to.
        """
        try:
            return self._begin_upload(mount, source)
        except RegistryError as error:
            if self._create is None or "NAME_UNKNOWN" not in error.codes:
                raise
            self._create()
            return self._begin_upload(mount, source)

    def _begin_upload(self, mount: Digest | None, source: str) -> Upload | None:
        scopes = self._scopes
        if mount is not None:
            scopes = (*scopes, wire.repository_scope(source, ["pull"]))

        def post() -> Upload | None:
            url = wire.uploads_url(self._base(), self.path, mount=mount, source=source)
            with self._send(Request("POST", url), scopes) as reply:
                if reply.status == 201 and mount is not None:
                    return None
                if reply.status == 202:
                    minimum = reply.headers.number("OCI-Chunk-Min-Length") or 0
                    return Upload(wire.resolve_location(reply.url, reply.headers), chunk_minimum=minimum)
                raise self._refusal(reply, str(mount or ""))

        if mount is None:
            return self._repeat(post)
        try:
            return post()
        except RegistryError:
            return self._begin_upload(None, "")

    def upload(self, blob: Descriptor, blocks: Iterator[ReadableBuffer], upload: Upload) -> None:
        """Send a blob in one request. The registry checks the digest as we do."""
        with self._cancelling(upload):
            request = Request("PUT", wire.finish_url(upload.location, blob.digest), _OCTETS)
            try:
                with self._send(request, body=Body(blocks, blob.size), size=blob.size) as reply:
                    self._check_stored(reply, str(blob.digest))
            except RegistryError as error:
                if error.status or not self._arrived(blob.digest):
                    raise

    def upload_stream(self, blocks: Iterator[ReadableBuffer], upload: Upload, finish: Callable[[], Digest]) -> None:
        """Send a blob whose digest ``finish`` knows once the blocks have ended."""
        if self.profile.last_chunk_ends:
            return self.upload_chunks(blocks, upload, finish)
        with self._cancelling(upload):
            request = Request("PATCH", upload.location, _OCTETS)
            with self._send(request, body=Body(blocks, None), size=None) as reply:
                if reply.status not in _TAKEN:
                    raise self._refusal(reply)
                position = self._moved(upload, reply)
            self._finish(position, finish(), memoryview(b""))
        return None

    def upload_chunks(
        self,
        blocks: Iterator[ReadableBuffer],
        upload: Upload,
        finish: Callable[[], Digest],
        *,
        keep: Callable[[Upload], None] | None = None,
    ) -> None:
        """Send a blob's bytes from ``upload.offset`` on, a chunk a request.

        ``keep`` is told after each chunk how the upload stands, and may write it down: with it
        an upload that fails stays open at the registry, for ``find_upload`` in another process.
        """
        with self._cancelling(upload) if keep is None else nullcontext():
            position, held, nothing = upload, memoryview(b""), memoryview(b"")
            behind = self.profile.last_chunk_ends
            for chunk in _chunks(blocks, self._chunk_size(upload), buffers=2 if behind else 1):
                ready, held = (held, chunk) if behind else (chunk, nothing)
                if ready:
                    position = self._send_chunk(position, ready)
                    if keep is not None:
                        keep(position)
            self._finish(position, finish(), held)

    def find_upload(self, upload: Upload) -> Upload | None:
        """How an upload of another process stands now; None when the registry has forgotten it.

        Go on with the blob's bytes from its ``offset``. What arrived beyond that is found
        while the next chunk is sent.
        """
        position, arrived = self._status(upload)
        if arrived is None:
            return None
        lost = arrived < upload.offset and not self.profile.last_chunk_ends
        return replace(position, offset=arrived) if lost else position

    def cancel_upload(self, upload: Upload) -> None:
        """Tell the registry to forget an upload; what it answers does not matter."""
        with suppress(Exception):
            self._send(Request("DELETE", upload.location)).close()

    @contextmanager
    def _cancelling(self, upload: Upload) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.cancel_upload(upload)
            raise

    def _check_stored(self, reply: Reply, digest: str) -> None:
        if reply.status not in _TAKEN:
            raise self._refusal(reply, digest)

    def _arrived(self, digest: Digest) -> bool:
        """Whether a blob is there although nobody said so: its last reply was lost."""
        with suppress(RegistryError), self._send(self._question(digest)) as reply:
            return reply.status in {200, 206}
        return False

    # Chunks

    def _chunk_size(self, upload: Upload) -> int:
        size = max(self.profile.chunk_size, upload.chunk_minimum)
        if size > _LARGEST_CHUNK:
            raise RegistryError(f"push to {self.name}: the registry wants chunks of {size} bytes or more")
        return size

    def _send_chunk(self, upload: Upload, chunk: memoryview) -> Upload:
        """The upload with one more chunk, in pieces where the registry finds it too large.

        A registry that lost the way is asked how far it came. Answers differ (some count one
        byte too many, some say the same for ever), so what does not fit is tried and refused.
        """
        first, end = upload.offset, upload.offset + len(chunk)
        start, piece = first, len(chunk)
        refused: set[int] = set()
        failures = 0
        for _ in range(_MAX_PATCHES):
            stop = min(start + piece, end)
            upload, failure = self._patch(upload, start, chunk[start - first : stop - first])
            if failure is None:
                if stop == end:
                    return replace(upload, offset=end)
                start = stop
                continue
            if failure.status == 416:
                refused.add(start)
            else:
                failures += 1
                self._wait(failures, failure)
            upload, arrived = self._status(upload)
            following = self._next_start(arrived, first, end, refused, failure)
            if following == end:
                return replace(upload, offset=end)
            if following is None:
                if piece <= _SMALLEST_PIECE:
                    raise failure
                piece, following = piece // 2, start
                refused.clear()
            start = following
        raise RegistryError(f"push to {self.name}: the registry does not take a chunk of the upload", temporary=True)

    def _patch(self, upload: Upload, start: int, data: memoryview) -> tuple[Upload, RegistryError | None]:
        """One PATCH; its failure, where another try may help."""
        place = {"Content-Range": f"{start}-{start + len(data) - 1}"}
        try:
            with self._send(Request("PATCH", upload.location, _OCTETS | place, data), size=len(data)) as reply:
                if reply.status in _TAKEN:
                    return self._moved(upload, reply), None
                failure = self._refusal(reply)
        except RegistryError as error:
            failure = error
        if isinstance(failure, RegistryError) and (failure.temporary or failure.status == 416):
            return upload, failure
        raise failure

    def _wait(self, failures: int, failure: RegistryError) -> None:
        if failures >= self.retry.attempts:
            raise failure
        self.retry.sleep(self.retry.wait_s(failures, failure.retry_after_s))

    def _status(self, upload: Upload) -> tuple[Upload, int | None]:
        """Where the upload goes on and how many bytes the registry says it has; None when it is gone."""

        def ask() -> tuple[Upload, int | None]:
            with self._send(Request("GET", upload.location)) as reply:
                if reply.status == 404:
                    return upload, None
                if reply.status not in {200, 202, 204}:
                    raise self._refusal(reply)
                return self._moved(upload, reply), _bytes_arrived(reply)

        return self._repeat(ask)

    def _next_start(
        self, arrived: int | None, first: int, end: int, refused: set[int], failure: RegistryError
    ) -> int | None:
        """Where to go on within a chunk from ``first`` to ``end``; None when nothing is left to try."""
        if arrived is None:
            raise failure
        if arrived < first:  # a status that does not move: the chunk is there whole, or not at all
            candidates = [first, end]
        else:
            candidates = [arrived, arrived - 1]
            if self.profile.counts_one_too_many:
                candidates.reverse()
        return next((offset for offset in candidates if first <= offset <= end and offset not in refused), None)

    def _moved(self, upload: Upload, reply: Reply) -> Upload:
        """The upload at the location that a reply names, if it names one."""
        if reply.headers.get("Location") is None:
            return upload
        return replace(upload, location=wire.resolve_location(reply.url, reply.headers))

    def _finish(self, upload: Upload, digest: Digest, last: memoryview) -> None:
        """End an upload, with its last chunk where there is one left."""
        place = {"Content-Range": f"{upload.offset}-{upload.offset + len(last) - 1}"} if last else {}
        request = Request("PUT", wire.finish_url(upload.location, digest), _OCTETS | place, last)

        def put() -> None:
            with self._send(request, size=len(last)) as reply:
                if reply.status == 404 and self._arrived(digest):
                    return  # an earlier try did it, and its reply was lost
                self._check_stored(reply, str(digest))

        self._repeat(put)


def _bytes_arrived(reply: Reply) -> int:
    """By ``Range: 0-<last>``, which says ``0-0`` for nothing too; some write ``bytes=`` before it."""
    match = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", (reply.headers.get("Range") or "").strip())
    last = int(match[1]) if match else 0
    return last + 1 if last else 0


def _chunks(blocks: Iterator[ReadableBuffer], size: int, *, buffers: int) -> Iterator[memoryview]:
    """The same bytes in chunks of ``size``, the last one shorter. So many chunks are valid at once."""
    turns = cycle([memoryview(bytearray(size)) for _ in range(buffers)])
    buffer, filled = next(turns), 0
    for block in blocks:
        view = memoryview(block).cast("B")
        while filled + len(view) >= size:
            taken = size - filled
            buffer[filled:] = view[:taken]
            view = view[taken:]
            yield buffer
            buffer, filled = next(turns), 0
        buffer[filled : filled + len(view)] = view
        filled += len(view)
    if filled:
        yield buffer[:filled]
