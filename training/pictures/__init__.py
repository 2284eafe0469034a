"""Pictures of a training run, and the page that shows them; no global state of matplotlib."""
