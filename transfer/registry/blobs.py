"""Blobs of a repository: read and verified, resumed where a connection breaks.

Spec: distribution-spec v1.1, "Pulling blobs".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import BlobNotFound, RegistryError, SizeMismatch
from transfer.registry import wire
from transfer.registry.session import Session
from transfer.registry.transport import Reply
from transfer.registry.wire import Request
from transfer.streams import VerifiedBlocks

_MAX_RESUMES: Final = 5
"""Times in a row that a blob may break off without a byte of progress."""
_MAX_REPLIES: Final = 100
"""Replies that one blob may be pieced together from."""


class Blobs(Session):
    """Reading and deleting."""

    def has_blob(self, digest: Digest) -> bool:
        def ask() -> bool:
            with self._send(self._question(digest)) as reply:
                if reply.status == 404:
                    return False
                if reply.status in {200, 206}:
                    return True
                raise self._refusal(reply, str(digest))

        return self._repeat(ask)

    def check_blob(self, blob: Descriptor) -> None:
        """Raises BlobNotFound, or SizeMismatch where the registry tells another size."""

        def ask() -> int | None:
            with self._send(self._question(blob.digest)) as reply:
                if reply.status == 404:
                    raise BlobNotFound(f"blob {blob.digest} not found in {self.name}")
                if reply.status not in {200, 206}:
                    raise self._refusal(reply, str(blob.digest))
                part = wire.content_range(reply.headers)
                return part.total if part else reply.headers.length()

        size = self._repeat(ask)
        if size is not None and size != blob.size:
            raise SizeMismatch(blob.size, size, what=f"blob {blob.digest} in {self.name}")

    def _question(self, digest: Digest) -> Request:
        """Asks whether a blob is there; by its first byte where HEAD is not answered."""
        url = wire.blob_url(self._base(), self.path, digest)
        return Request("HEAD", url) if self.profile.heads_blobs else Request("GET", url, {"Range": "bytes=0-0"})

    @contextmanager
    def open_blob(self, blob: Descriptor) -> Iterator[Iterator[memoryview]]:
        """A blob's verified blocks; a connection that breaks is taken up where it stopped.

        Raises BlobNotFound, SizeMismatch, DigestMismatch, RegistryError.
        """
        body = _ResumingBody(self, blob)
        try:
            with VerifiedBlocks(body.readinto, blob) as blocks:
                yield blocks
        finally:
            body.close()

    def get_blob(self, blob: Descriptor, offset: int) -> Reply:
        """A reply whose body is the blob from ``offset`` on. The caller closes it."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        request = Request("GET", wire.blob_url(self._base(), self.path, blob.digest), headers)
        reply = self._send(request, size=blob.size)
        try:
            self._position(reply, blob, offset)
        except BaseException:
            reply.close()
            raise
        return reply

    def _position(self, reply: Reply, blob: Descriptor, offset: int) -> None:
        """Check that a blob reply is what was asked, and bring its body to ``offset``."""
        if reply.status == 404:
            raise BlobNotFound(f"blob {blob.digest} not found in {self.name}")
        if reply.status == 206 and offset and wire.continues(reply.headers, offset, blob.size):
            return
        if reply.status != 200:
            raise self._refusal(reply, str(blob.digest))
        length = reply.headers.length()
        if length is not None and length != blob.size:
            raise SizeMismatch(blob.size, length, what=f"blob {blob.digest} in {self.name}")
        _discard(reply, offset)


class _ResumingBody:
    """A blob's bytes as one stream, over as many replies as it takes."""

    def __init__(self, repository: Blobs, blob: Descriptor) -> None:
        self._repository = repository
        self._blob = blob
        self._offset = 0
        self._fruitless = 0
        self._broken = 0
        self._reply: Reply | None = None

    def readinto(self, buffer: memoryview) -> int:
        while True:
            try:
                if self._reply is None:
                    self._reply = self._repository.get_blob(self._blob, self._offset)
                count = self._reply.readinto(buffer)
                if count == 0 and self._offset < self._blob.size:
                    raise self._cut_off()
            except RegistryError as error:
                self._prepare_resume(error)
            else:
                self._offset += count
                self._fruitless = 0 if count else self._fruitless
                return count

    def _cut_off(self) -> RegistryError:
        return RegistryError(
            f"pull from {self._repository.name}: blob {self._blob.digest} broke off"
            f" after {self._offset} of {self._blob.size} bytes",
            temporary=True,
        )

    def _prepare_resume(self, error: RegistryError) -> None:
        """Wait for another try, or give up by raising what happened."""
        self.close()
        self._fruitless += 1
        self._broken += 1
        if not error.temporary or self._fruitless >= _MAX_RESUMES or self._broken >= _MAX_REPLIES:
            raise error
        retry = self._repository.retry
        retry.sleep(retry.wait_s(self._fruitless, error.retry_after_s))

    def close(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.close()


def _discard(reply: Reply, count: int) -> None:
    """Read past the start of a body that a registry sends again from its beginning."""
    scratch = memoryview(bytearray(min(count, 1 << 20)))
    while count:
        got = reply.readinto(scratch[:count])
        if not got:
            raise RegistryError("the reply ended before the place to resume at", temporary=True)
        count -= got
