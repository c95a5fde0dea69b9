"""``python -m sebs_core``: the same as ``sebs``."""

from sebs_core.cli import main

if __name__ == "__main__":
    main()
