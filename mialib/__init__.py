"""A thin helper package behind the notebooks: published membership-inference tables, re-run and compared."""

import os
import warnings

__version__ = "0.1.0"

# Two warnings that no reader can act on and that would put paths of the machine into notebooks: tqdm looks for
# notebook widgets that we do not use, and joblib replaces a worker that has grown, at no loss.
warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")

# For the worker processes: glibc hands freed blocks of this size back to the system, and the next batch of a CNN has
# to fault them in again; a third of the training time went into that. Other systems' allocators ignore the names.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**31))
