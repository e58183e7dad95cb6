"""Where work on many images runs, and how a run is told from any other."""
