"""torchrun, whose ranks know its process number: `python -m training.torchrun`, with torchrun's arguments."""

import os

from torch.distributed.run import main

TORCHRUN = "TOKENMILL_TORCHRUN"

if __name__ == "__main__":
    # In a container it may be process 1, which elsewhere is the parent of those whose parent is gone.
    os.environ[TORCHRUN] = str(os.getpid())
    main()
