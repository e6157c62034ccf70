"""What in the store is needed, and by what: questions over all tables, of the collector, the checker and listings."""

from __future__ import annotations

from store.database import Database


def used_blobs(database: Database) -> set[str]:
    """Digests that an image, a cached step or a lease needs."""
    return {
        row[0]
        for row in database._rows(
            "SELECT digest FROM image_blobs UNION SELECT digest FROM images"
            " UNION SELECT digest FROM cache WHERE digest IS NOT NULL"
            " UNION SELECT value FROM leases WHERE kind = 'blob'"
        )
    }


def used_chains(database: Database) -> set[str]:
    """Chain ids that an image, a cached step or a lease names."""
    return {
        row[0]
        for row in database._rows(
            "SELECT chain FROM image_layers UNION SELECT chain FROM cache WHERE chain IS NOT NULL"
            " UNION SELECT value FROM leases WHERE kind = 'chain'"
        )
    }


def needed_by_images(database: Database) -> set[str]:
    """Digests and chain ids that an image names, whatever else does."""
    return {
        row[0]
        for row in database._rows(
            "SELECT digest FROM image_blobs UNION SELECT digest FROM images UNION SELECT chain FROM image_layers"
        )
    }


def unpacked_sizes(database: Database) -> dict[str, int]:
    """Manifest digest to the bytes of all its layers' files, for images that are unpacked whole."""
    rows = database._rows(
        "SELECT i.image, sum(l.size) FROM image_layers i LEFT JOIN layers l ON l.chain = i.chain"
        " GROUP BY i.image HAVING count(*) = count(l.chain)"
    )
    return {str(image): int(size) for image, size in rows}
