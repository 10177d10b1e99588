"""Running the `siskin` command from the scripts."""

import subprocess
import sys


def siskin(binary, *args):
    """What the command prints; its error ends the script."""
    done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout
