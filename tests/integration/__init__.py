"""The broker as a process, over sockets."""
