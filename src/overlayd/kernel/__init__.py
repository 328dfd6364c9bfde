"""The only room that knows the FUSE protocol: types, errno, hand-off to threads, caching."""
