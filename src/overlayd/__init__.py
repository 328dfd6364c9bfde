"""overlayd: several host directories, one mount namespace, one `--dir` for a WASI runtime."""

__version__ = "0.1.0"
