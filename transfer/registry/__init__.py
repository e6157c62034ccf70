"""A client of registries, by the distribution-spec.

wire.py replies.py       requests and replies as values, no sockets
connection.py transport.py   the only HTTP: connections, redirects, time limits, proxies, TLS
limits.py                how many requests at once, and how fast
challenge.py             logins and tokens
profiles.py              what single registries do differently, and what their refusals mean
session.py               requests about one repository; on it stand
manifests.py blobs.py uploads.py lists.py referrers.py
client.py                all of these as one ``Repository``
"""
