"""The only room that knows the FUSE protocol: types, errno, hand-off to threads, caching."""

from overlayd.kernel import wire as wire  # before pyfuse3, whoever comes first
