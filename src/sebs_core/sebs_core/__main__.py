"""``sebs`` and ``python -m sebs_core``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C while its modules are still loading ends it quietly."""
    try:
        from sebs_core.cli import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
