"""With this folder on PYTHONPATH, a vector worker makes small segments and marks the step that it is in (see tests.crash.marks)."""

import os
import sys
from pathlib import Path

if "vector.worker" in sys.orig_argv:
    from tests.crash.marks import VARIABLE, install

    install(Path(os.environ[VARIABLE]))
