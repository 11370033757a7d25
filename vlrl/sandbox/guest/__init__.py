"""What runs on the far side: standard library only, imported by a fresh interpreter as `guest`."""
