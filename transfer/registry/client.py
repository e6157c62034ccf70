"""One repository of a registry: manifests, blobs, uploads, tags, referrers.

Small requests are repeated here when their failure is temporary, a blob that breaks off is
resumed where it stopped, and so is an upload in chunks. An upload in one request is not
repeated here, as its bytes come from elsewhere: the caller opens them again (``transfer.copy``).

Spec: distribution-spec v1.1, "Pull", "Push", "Content Discovery", "Content Management".
"""

from __future__ import annotations

from image.digest import Digest
from transfer.registry import wire
from transfer.registry.lists import Lists
from transfer.registry.referrers import Referrers
from transfer.registry.uploads import Upload, Uploads
from transfer.registry.wire import Request

__all__ = ("Repository", "Upload")


class Repository(Uploads, Referrers, Lists):
    """``path`` at a registry, asked for with ``actions`` (``pull``, or ``pull`` and ``push``)."""

    def delete_blob(self, digest: Digest) -> None:
        """Delete a blob that no manifest needs. Idempotent. Raises RegistryError."""
        self._delete(Request("DELETE", wire.blob_url(self._base(), self.path, digest)), str(digest))
