"""What people type; nothing else prints or exits."""
