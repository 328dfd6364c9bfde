"""A running mount: from the request to the last unmount."""
