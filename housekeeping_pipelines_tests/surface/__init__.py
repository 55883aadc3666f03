"""What is relied on from outside, as it was when somebody last looked at it and found it good."""
