"""Local storage: content-addressed blobs, overlay2 layers and image metadata under one root.

Any number of processes share a root; see ``store.store`` for the promises.
"""
