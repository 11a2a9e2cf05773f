"""What electricity emits where and when: zones, providers, the chain that falls back visibly, exact arithmetic."""
