"""One training over several processes: who they are, what they exchange, how they are started and watched."""
