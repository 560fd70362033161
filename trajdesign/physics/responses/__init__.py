"""What the gradient system makes of the gradients that it is told to play: one file a model."""
