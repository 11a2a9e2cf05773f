"""Where in time work should run: pure arithmetic on arrays, no clock, no network, no store."""
