"""Users' verifiers by name: the hostile check, and a stricter one held out of the rewards."""
