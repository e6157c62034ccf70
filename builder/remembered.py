"""What the store remembers of files outside it between builds, so that unchanged ones are not read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from builder.entries import FileKey
from store.metadata import Metadata


class StoredChecksums:
    """The checksums of context files that the store remembers between builds."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def get_many(self, keys: Sequence[FileKey]) -> Mapping[FileKey, bytes]:
        found: dict[FileKey, bytes] = {}
        for device in {key.dev for key in keys}:
            here = {key.ino: key for key in keys if key.dev == device}
            for inode, (*changes, sha256) in self._metadata.checksums(device, list(here)).items():
                key = here[inode]
                if changes == [key.size, key.mtime_ns, key.ctime_ns]:
                    found[key] = sha256
        return found

    def put_many(self, digests: Mapping[FileKey, bytes]) -> None:
        self._metadata.add_checksums((*key, sha256) for key, sha256 in digests.items())

    def selection(self, key: str) -> tuple[str, str] | None:
        return self._metadata.selection(key)

    def remember_selection(self, key: str, fingerprint: str, checksum: str) -> None:
        self._metadata.set_selection(key, fingerprint, checksum)
