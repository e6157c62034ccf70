"""``python -m tierce``: the same as the ``tierce`` command."""

from tierce.cli.main import main

if __name__ == "__main__":
    main()
