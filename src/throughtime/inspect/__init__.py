"""What a recurrent network remembers: gradients through time, states and gates, what mattered, and going back in time."""
