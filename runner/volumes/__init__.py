"""What a container mounts besides its root: words → requests → volumes made and filled → mount points."""
