"""The only room that makes system calls on files: by handle and single name, following no link."""
