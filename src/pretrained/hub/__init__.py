"""References and snapshots: from what a user writes to files at one commit."""
