"""What the operations mean; imports neither pyfuse3 nor trio.

Concurrency: an operation is a plain function. Those on quick local file systems run on the event
loop, one after the other; those on file systems that may block run in worker threads beside them.
The kernel serialises operations on one directory; the node and handle tables take a lock of their
own for each change, and never hold it while the host is asked.
"""
