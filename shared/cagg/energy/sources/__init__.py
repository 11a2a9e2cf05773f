"""Energy sources, one per file: each turns one counter or model into cumulative millijoules of the host."""
