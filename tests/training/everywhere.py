"""A launcher for tests: starts a command as often as there are nodes, all on this machine, and waits for them."""

import subprocess
import sys

if __name__ == "__main__":
    processes = [subprocess.Popen(sys.argv[2:]) for _ in range(int(sys.argv[1]))]
    sys.exit(max(abs(process.wait()) for process in processes))
