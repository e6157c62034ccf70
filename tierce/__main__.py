"""``python -m tierce``: the same as the ``tierce`` command."""

from tierce.cli.main import entry

if __name__ == "__main__":
    entry()
