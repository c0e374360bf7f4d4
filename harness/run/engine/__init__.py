"""Where trials run: on this machine or on a cluster."""
