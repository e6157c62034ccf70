"""A service that says how it is, and counts visits while it lives."""

import itertools
import os

from bottle import route, run

visits = itertools.count(1)


@route("/health")
def health():
    return {"status": "ok", "uid": os.getuid()}


@route("/")
def index():
    return f"You are visitor {next(visits)}.\n"


run(host="0.0.0.0", port=8000, quiet=True)
