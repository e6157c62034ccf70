"""registries.conf (version 2): mirrors, blocks and short names, as podman and skopeo read them.

``files.py`` finds and merges the files, ``decode.py`` reads one, ``values.py`` answers.

Spec: containers-registries.conf(5), containers-registries.conf.d(5).
"""
