"""A thin helper package behind the notebooks: published membership-inference tables, re-run and compared."""

__version__ = "0.1.0"
