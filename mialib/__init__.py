"""A thin helper package behind the notebooks: published membership-inference tables, re-run and compared."""

import warnings

__version__ = "0.1.0"

# Two warnings that no reader can act on and that would put paths of the machine into notebooks: pooch looks for
# notebook widgets that we do not use, and joblib replaces a worker that has grown, at no loss.
warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
