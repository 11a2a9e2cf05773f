"""One file per source of carbon intensity; ``registry`` builds them by name."""
