"""``python -m sumout.cli`` is the command, too."""

from __future__ import annotations

from sumout.cli.app import main

if __name__ == "__main__":
    main(prog_name="sumout")
