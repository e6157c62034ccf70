"""Containers as users know them: started, watched in the foreground, and cleaned up after."""
