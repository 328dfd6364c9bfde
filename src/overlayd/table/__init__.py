"""What was asked for: preopens, the configuration file, the tree of mount points."""
